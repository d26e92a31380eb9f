#pragma once

#include <juce_core/juce_core.h>
#include <utility>
#include <vector>

namespace stemprover
{

/** Writes one OSC 1.0 message, preceded by its size as TCP requires. (juce_osc only sends datagrams and has no 64-bit
    integers.) */
class OscWriter
{
public:
    OscWriter (const juce::String& address, const char* tags);

    OscWriter& add (int value);
    OscWriter& add (juce::int64 value);
    OscWriter& add (float value);
    OscWriter& add (double value);
    OscWriter& add (const juce::String& value);
    /** Adds a blob of this many bytes. Fill it before adding anything else. */
    void* addBlob (size_t bytes);

    /** The message with its size; valid until the next `add`. */
    const juce::MemoryBlock& framed();

private:
    void text (const juce::String& value);
    void bytes (const void* data, size_t size);

    juce::MemoryBlock data;
};

/** Reads the arguments of one OSC message in order. An argument that is missing or of another type is read as 0 or empty
    and sets `failed`. */
class OscReader
{
public:
    OscReader (const void* message, size_t size);

    const juce::String& address() const { return path; }
    /** A 32-bit or 64-bit integer. */
    juce::int64 integer();
    double number();
    juce::String text();
    /** A blob's bytes, inside the message. */
    std::pair<const char*, size_t> blob();
    bool more() const { return next < tags.length(); }
    bool failed = false;

private:
    char tag();
    const char* take (size_t size);
    juce::String readText();

    const char* at;
    const char* const end;
    juce::String path, tags;
    int next = 0;
};

/** Splits a TCP stream into messages. */
class FrameReader
{
public:
    void clear() { waiting.clear(); start = 0; broken = false; }
    void feed (const void* data, size_t size);
    /** The next complete message, or false. An invalid size sets `broken`; the connection is unusable after that. */
    bool next (std::vector<char>& message);
    bool broken = false;

private:
    std::vector<char> waiting;
    size_t start = 0;
};

} // namespace stemprover
