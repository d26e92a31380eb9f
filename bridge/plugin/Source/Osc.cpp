#include "Osc.h"
#include "Generated.h"

namespace stemprover
{

static const juce::String root { protocol::root };

OscWriter::OscWriter (const juce::String& address, const char* tags)
{
    const juce::uint32 sizeLater = 0;
    bytes (&sizeLater, 4);
    text (root + address);
    text ("," + juce::String (tags));
}

OscWriter& OscWriter::add (int value)
{
    const auto ordered = juce::ByteOrder::swapIfLittleEndian ((juce::uint32) value);
    bytes (&ordered, 4);
    return *this;
}

OscWriter& OscWriter::add (juce::int64 value)
{
    const auto ordered = juce::ByteOrder::swapIfLittleEndian ((juce::uint64) value);
    bytes (&ordered, 8);
    return *this;
}

OscWriter& OscWriter::add (float value)
{
    juce::uint32 bits;
    std::memcpy (&bits, &value, 4);
    return add ((int) bits);
}

OscWriter& OscWriter::add (double value)
{
    juce::int64 bits;
    std::memcpy (&bits, &value, 8);
    return add (bits);
}

OscWriter& OscWriter::add (const juce::String& value)
{
    text (value);
    return *this;
}

void* OscWriter::addBlob (size_t size)
{
    add ((int) size);
    const auto before = data.getSize();
    data.setSize (before + ((size + 3) & ~(size_t) 3), true);
    return static_cast<char*> (data.getData()) + before;
}

const juce::MemoryBlock& OscWriter::framed()
{
    const auto size = juce::ByteOrder::swapIfLittleEndian ((juce::uint32) (data.getSize() - 4));
    data.copyFrom (&size, 0, 4);
    return data;
}

void OscWriter::text (const juce::String& value)
{
    const char padding[4] = {};
    const auto size = value.getNumBytesAsUTF8();
    bytes (value.toRawUTF8(), size);
    bytes (padding, 4 - size % 4);
}

void OscWriter::bytes (const void* source, size_t size)
{
    data.append (source, size);
}

OscReader::OscReader (const void* message, size_t size)
    : at (static_cast<const char*> (message)), end (at + size)
{
    path = readText();
    tags = readText();
    if (! path.startsWith (root) || ! tags.startsWithChar (','))
        failed = true;
    path = path.substring (root.length());
    tags = tags.substring (1);
}

juce::int64 OscReader::integer()
{
    const auto kind = tag();
    if (kind == 'i')
        if (const auto* from = take (4))
            return (juce::int32) juce::ByteOrder::bigEndianInt (from);
    if (kind == 'h')
        if (const auto* from = take (8))
            return (juce::int64) juce::ByteOrder::bigEndianInt64 (from);
    failed = true;
    return 0;
}

double OscReader::number()
{
    const auto kind = tag();
    if (kind == 'f')
        if (const auto* from = take (4))
        {
            const auto bits = juce::ByteOrder::bigEndianInt (from);
            float value;
            std::memcpy (&value, &bits, 4);
            return value;
        }
    if (kind == 'd')
        if (const auto* from = take (8))
        {
            const auto bits = juce::ByteOrder::bigEndianInt64 (from);
            double value;
            std::memcpy (&value, &bits, 8);
            return value;
        }
    failed = true;
    return 0.0;
}

juce::String OscReader::text()
{
    if (tag() == 's')
        return readText();
    failed = true;
    return {};
}

std::pair<const char*, size_t> OscReader::blob()
{
    if (tag() == 'b')
        if (const auto* head = take (4))
        {
            const auto size = (size_t) juce::ByteOrder::bigEndianInt (head);
            if (const auto* from = take ((size + 3) & ~(size_t) 3))
                return { from, size };
        }
    failed = true;
    return { nullptr, 0 };
}

char OscReader::tag()
{
    return next < tags.length() ? (char) tags[next++] : '\0';
}

const char* OscReader::take (size_t size)
{
    if ((size_t) (end - at) < size)
        return nullptr;
    const auto* from = at;
    at += size;
    return from;
}

juce::String OscReader::readText()
{
    const auto* stop = static_cast<const char*> (std::memchr (at, 0, (size_t) (end - at)));
    if (stop == nullptr)
    {
        failed = true;
        at = end;
        return {};
    }
    const auto length = (size_t) (stop - at);
    const auto found = juce::String::fromUTF8 (at, (int) length);
    if (take ((length + 4) & ~(size_t) 3) == nullptr)
        failed = true;
    return found;
}

void FrameReader::feed (const void* data, size_t size)
{
    if (start > 0)
    {
        waiting.erase (waiting.begin(), waiting.begin() + (std::ptrdiff_t) start);
        start = 0;
    }
    const auto* from = static_cast<const char*> (data);
    waiting.insert (waiting.end(), from, from + size);
}

bool FrameReader::next (std::vector<char>& message)
{
    if (broken || waiting.size() - start < 4)
        return false;
    const auto size = juce::ByteOrder::bigEndianInt (waiting.data() + start);
    if (size == 0 || size > (juce::uint32) protocol::maxMessageBytes)
    {
        broken = true;
        return false;
    }
    if (waiting.size() - start - 4 < size)
        return false;
    const auto first = waiting.begin() + (std::ptrdiff_t) (start + 4);
    message.assign (first, first + size);
    start += 4 + (size_t) size;
    return true;
}

} // namespace stemprover
