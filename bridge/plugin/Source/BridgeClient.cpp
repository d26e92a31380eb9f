#include "BridgeClient.h"

namespace stemprover
{

namespace
{
constexpr int protocolVersion = 1, statusLate = 1, statusUntouched = 2, errorNoStream = 7;

double now() { return juce::Time::getMillisecondCounterHiRes() * 1e-3; }
} // namespace

float BridgeClient::Block::sample (int channel, int64_t index) const
{
    const auto bits = juce::ByteOrder::littleEndianInt (samples + (index * channels + channel) * (int64_t) sizeof (float));
    float value;
    std::memcpy (&value, &bits, sizeof (float));
    return value;
}

BridgeClient::BridgeClient (int bridgePort, juce::String secret, Listener& who)
    : port (bridgePort), token (std::move (secret)), listener (who), incoming (1 << 18)
{
}

bool BridgeClient::connect()
{
    if (! connection.open (port, 250))
        return false;
    frames.clear();
    waiting = 0;
    heardAt = now();
    return true;
}

void BridgeClient::hello (const Format& format)
{
    asked = format;
    OscWriter word ("/hello", "isssiiiii");
    word.add (++request).add (token).add (juce::String ("plug-in")).add (juce::String ("stream"));
    word.add (format.rate).add (mostInBlock).add (format.channels).add (format.songChannels).add (protocolVersion);
    write (word);
}

void BridgeClient::ping()
{
    pingedAt = now();
    OscWriter word ("/ping", "id");
    word.add (++request).add (pingedAt);
    write (word);
}

void BridgeClient::askForPresets()
{
    OscWriter word ("/presets", "i");
    word.add (++request);
    write (word);
}

void BridgeClient::preset (const juce::String& name)
{
    OscWriter word (ofStream ("/preset"), "si");
    word.add (name);
    writeSetting (word);
}

void BridgeClient::blend (const juce::StringArray& names, const std::vector<float>& weights)
{
    OscWriter word (ofStream ("/blend"), (juce::String::repeatedString ("sf", names.size()) + "i").toRawUTF8());
    for (int i = 0; i < names.size(); ++i)
        word.add (names[i]).add (weights[(size_t) i]);
    writeSetting (word);
}

void BridgeClient::quality (const juce::String& name)
{
    OscWriter word (ofStream ("/quality"), "si");
    word.add (name);
    writeSetting (word);
}

void BridgeClient::reset()
{
    OscWriter word ("/reset", "ii");
    word.add (++request).add (stream);
    write (word);
}

void BridgeClient::flush()
{
    OscWriter word ("/flush", "ii");
    word.add (++request).add (stream);
    write (word);
}

void BridgeClient::close()
{
    if (connection.isOpen() && opened)
    {
        OscWriter word ("/close", "ii");
        word.add (++request).add (stream);
        const auto& data = word.framed();
        connection.write (data.getData(), (int) data.getSize(), 0); // a bridge that does not take it sees the connection end
    }
    connection.close();
    opened = false;
    waiting = 0;
}

bool BridgeClient::receive()
{
    auto any = false;
    while (connection.isOpen())
    {
        const auto count = connection.read (incoming.data(), (int) incoming.size());
        if (count == 0)
            break;
        any = true;
        if (count < 0)
        {
            listener.lost ("the bridge has gone");
            break;
        }
        heardAt = now();
        frames.feed (incoming.data(), (size_t) count);
        while (connection.isOpen() && frames.next (message))
        {
            OscReader reader (message.data(), message.size());
            if (! reader.failed)
                hear (reader);
        }
        if (frames.broken)
        {
            listener.lost ("what answers on port " + juce::String (port) + " is no bridge");
            break;
        }
    }
    return any;
}

void BridgeClient::hear (OscReader& reader)
{
    const auto& address = reader.address();
    if (address == "/block")
        hearBlock (reader);
    else if (address == "/ready")
        hearReady (reader);
    else if (address == "/ack")
        hearAck (reader);
    else if (address == "/pong")
        hearPong (reader);
    else if (address == "/presets")
        hearPresets (reader);
    else if (address == "/error")
        hearError (reader);
    else if (address == "/goodbye")
        listener.lost ("the bridge has stopped");
}

void BridgeClient::hearReady (OscReader& reader)
{
    reader.integer(); // request
    reader.integer(); // session
    stream = (int) reader.integer();
    reader.integer(); // the engine's rate
    bridgeLatency = (int) reader.integer();
    if (reader.failed)
        return;
    opened = true;
    listener.streamOpened();
}

void BridgeClient::hearBlock (OscReader& reader)
{
    Block block;
    reader.integer(); // stream
    reader.integer(); // sequence
    block.position = (int64_t) reader.integer();
    block.count = (int64_t) reader.integer();
    reader.integer(); // flags
    const auto status = (int) reader.integer();
    reader.integer(); // the time that it took
    reader.integer(); // latency
    const auto [bytes, size] = reader.blob();
    constexpr int64_t mostInMessage = 1 << 18; // samples of a channel, at the most
    if (reader.failed || ! opened || block.count < 1 || block.count > mostInMessage
        || size != (size_t) block.count * (size_t) asked.channels * sizeof (float))
        return;
    block.channels = asked.channels;
    block.late = status == statusLate;
    block.untouched = status == statusUntouched;
    block.samples = bytes;
    listener.blockCame (block);
}

void BridgeClient::hearAck (OscReader& reader)
{
    const auto number = (int) reader.integer();
    const auto what = reader.text();
    if (what.endsWith ("/flush"))
        listener.flushed();
    else if (what.contains ("/stream/") && waiting > 0)
    {
        --waiting;
        if (number == lastSetting)
            listener.settingsTaken();
    }
}

void BridgeClient::hearPong (OscReader& reader)
{
    reader.integer(); // request
    for (int i = 0; i < 3; ++i)
        reader.number(); // times
    for (int i = 0; i < 3; ++i)
        reader.integer(); // late, lost and waiting blocks
    const auto load = (float) reader.number();
    if (! reader.failed)
        listener.loadTold (load);
}

void BridgeClient::hearPresets (OscReader& reader)
{
    reader.integer(); // request
    juce::StringArray names;
    while (reader.more() && ! reader.failed)
    {
        names.add (reader.text());
        reader.text(); // title
    }
    if (! reader.failed)
        listener.presetsTold (names);
}

void BridgeClient::hearError (OscReader& reader)
{
    const auto number = (int) reader.integer();
    const auto code = (int) reader.integer();
    const auto about = reader.text();
    const auto text = reader.text();
    const auto isSetting = about.contains ("/stream/");
    if (isSetting && waiting > 0)
        --waiting;
    if (code == errorNoStream)
        listener.lost (text);
    else if (! isSetting || number == lastSetting) // what a later one has overtaken is no trouble
        listener.refused (text, isSetting);
}

void BridgeClient::writeSetting (OscWriter& word)
{
    lastSetting = ++request;
    word.add (lastSetting);
    ++waiting;
    write (word);
}

void BridgeClient::write (OscWriter& word)
{
    if (! connection.isOpen())
        return;
    const auto& data = word.framed();
    const auto* bytes = static_cast<const char*> (data.getData());
    for (size_t done = 0, tries = 0; done < data.getSize();)
    {
        const auto count = connection.write (bytes + done, (int) (data.getSize() - done), 100);
        if (count < 0 || (count == 0 && ++tries == 10))
        {
            listener.lost ("the bridge takes nothing more");
            return;
        }
        done += (size_t) count;
    }
}

} // namespace stemprover
