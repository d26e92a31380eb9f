#pragma once

#include <juce_core/juce_core.h>
#include <utility>
#include <vector>

namespace stemprover
{

/** One OSC 1.0 message being written, with its size before it as TCP wants it. (juce_osc sends datagrams only and has no
    64-bit integers.) */
class OscWriter
{
public:
    OscWriter (const juce::String& address, const char* tags);

    OscWriter& add (int value);
    OscWriter& add (juce::int64 value);
    OscWriter& add (float value);
    OscWriter& add (double value);
    OscWriter& add (const juce::String& value);
    /** Room for a blob of this many bytes, to be filled by the caller before anything else is added. */
    void* addBlob (size_t bytes);

    /** The message; valid until the writer is changed. */
    const juce::MemoryBlock& framed();

private:
    void text (const juce::String& value);
    void bytes (const void* data, size_t size);

    juce::MemoryBlock data;
};

/** Reads the arguments of one OSC message in their order. What is not there, or of another type, makes `failed` true and
    comes as 0. */
class OscReader
{
public:
    OscReader (const void* message, size_t size);

    const juce::String& address() const { return path; }
    /** Integers of either size. */
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

/** Cuts a TCP stream into messages. */
class FrameReader
{
public:
    void clear() { waiting.clear(); start = 0; broken = false; }
    void feed (const void* data, size_t size);
    /** The next whole message. Sets `broken` for a size that no message has: the connection is of no use then. */
    bool next (std::vector<char>& message);
    bool broken = false;

private:
    static constexpr juce::uint32 limit = 1u << 20;
    std::vector<char> waiting;
    size_t start = 0;
};

} // namespace stemprover
