#include "BridgeClient.h"

namespace stemprover
{

namespace
{
double now() { return juce::Time::getMillisecondCounterHiRes() * 1e-3; }
} // namespace

float BridgeClient::Block::sample (int channel, int64_t index) const
{
    const auto bits = juce::ByteOrder::littleEndianInt (samples + (index * channels + channel) * (int64_t) sizeof (float));
    float value;
    std::memcpy (&value, &bits, sizeof (float));
    return value;
}

BridgeClient::BridgeClient (int bridgePort, juce::String secret, Listener& eventListener)
    : port (bridgePort), token (std::move (secret)), listener (eventListener), incoming (1 << 18)
{
}

bool BridgeClient::connect()
{
    if (! connection.open (port, 250))
        return false;
    frames.clear();
    unanswered = 0;
    receivedAt = now();
    return true;
}

void BridgeClient::hello (const Format& format)
{
    requested = format;
    OscWriter out ("/hello", "isssiiiii");
    out.add (++request).add (token).add (juce::String ("plug-in")).add (juce::String ("stream"));
    out.add (format.rate).add (maxBlock).add (format.channels).add (format.mixChannels).add (protocol::version);
    write (out);
}

void BridgeClient::ping()
{
    pingedAt = now();
    OscWriter out ("/ping", "id");
    out.add (++request).add (pingedAt);
    write (out);
}

void BridgeClient::requestPresets()
{
    OscWriter out ("/presets", "i");
    out.add (++request);
    write (out);
}

void BridgeClient::preset (const juce::String& name)
{
    OscWriter out (streamAddress ("/preset"), "si");
    out.add (name);
    writeSetting (out);
}

void BridgeClient::blend (const juce::StringArray& names, const std::vector<float>& weights)
{
    OscWriter out (streamAddress ("/blend"), (juce::String::repeatedString ("sf", names.size()) + "i").toRawUTF8());
    for (int i = 0; i < names.size(); ++i)
        out.add (names[i]).add (weights[(size_t) i]);
    writeSetting (out);
}

void BridgeClient::quality (const juce::String& name)
{
    OscWriter out (streamAddress ("/quality"), "si");
    out.add (name);
    writeSetting (out);
}

void BridgeClient::role (const juce::String& name)
{
    OscWriter out (streamAddress ("/role"), "si");
    out.add (name);
    writeSetting (out);
}

void BridgeClient::reset()
{
    OscWriter out ("/reset", "ii");
    out.add (++request).add (stream);
    write (out);
}

void BridgeClient::flush()
{
    OscWriter out ("/flush", "ii");
    out.add (++request).add (stream);
    write (out);
}

void BridgeClient::close()
{
    if (connection.isOpen() && opened)
    {
        OscWriter out ("/close", "ii");
        out.add (++request).add (stream);
        const auto& data = out.framed();
        // If this fails, the bridge notices that the connection ends.
        connection.write (data.getData(), (int) data.getSize(), 0);
    }
    connection.close();
    opened = false;
    unanswered = 0;
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
            listener.connectionLost ("the bridge closed the connection");
            break;
        }
        receivedAt = now();
        frames.feed (incoming.data(), (size_t) count);
        while (connection.isOpen() && frames.next (message))
        {
            OscReader reader (message.data(), message.size());
            if (! reader.failed)
                handle (reader);
        }
        if (frames.broken)
        {
            listener.connectionLost ("another program, not the bridge, answers on port " + juce::String (port));
            break;
        }
    }
    return any;
}

void BridgeClient::handle (OscReader& reader)
{
    const auto& address = reader.address();
    if (address == "/block")
        handleBlock (reader);
    else if (address == "/ready")
        handleReady (reader);
    else if (address == "/ack")
        handleAck (reader);
    else if (address == "/pong")
        handlePong (reader);
    else if (address == "/mix")
        handleMix (reader);
    else if (address == "/presets")
        handlePresets (reader);
    else if (address == "/error")
        handleError (reader);
    else if (address == "/goodbye")
        listener.connectionLost ("the bridge was stopped");
}

void BridgeClient::handleReady (OscReader& reader)
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

void BridgeClient::handleBlock (OscReader& reader)
{
    Block block;
    reader.integer(); // stream
    reader.integer(); // sequence
    block.position = (int64_t) reader.integer();
    block.count = (int64_t) reader.integer();
    reader.integer(); // flags
    const auto status = (int) reader.integer();
    reader.integer(); // processing time
    reader.integer(); // latency
    const auto [bytes, size] = reader.blob();
    constexpr auto maxCount = (int64_t) (protocol::maxMessageBytes / sizeof (float));
    if (reader.failed || ! opened || block.count < 1 || block.count > maxCount
        || size != (size_t) block.count * (size_t) requested.channels * sizeof (float))
        return;
    block.channels = requested.channels;
    block.late = status == protocol::BlockStatus::late;
    block.untouched = status == protocol::BlockStatus::warmingUp;
    block.samples = bytes;
    listener.blockReceived (block);
}

void BridgeClient::handleMix (OscReader& reader)
{
    const auto number = (int) reader.integer();
    const auto state = (int) reader.integer();
    const auto text = reader.text();
    if (! reader.failed && opened && number == stream)
        listener.sideChainReported (state < 2, text);
}

void BridgeClient::handleAck (OscReader& reader)
{
    const auto number = (int) reader.integer();
    const auto address = reader.text();
    if (address.endsWith ("/flush"))
        listener.flushed();
    else if (address.contains ("/stream/") && unanswered > 0)
    {
        --unanswered;
        if (number == lastSetting)
            listener.settingsAccepted();
    }
}

void BridgeClient::handlePong (OscReader& reader)
{
    reader.integer(); // request
    for (int i = 0; i < 3; ++i)
        reader.number(); // times
    for (int i = 0; i < 3; ++i)
        reader.integer(); // late, lost and waiting blocks
    const auto load = (float) reader.number();
    if (! reader.failed)
        listener.loadReceived (load);
}

void BridgeClient::handlePresets (OscReader& reader)
{
    reader.integer(); // request
    juce::StringArray names;
    while (reader.more() && ! reader.failed)
    {
        names.add (reader.text());
        reader.text(); // title
    }
    if (! reader.failed)
        listener.presetsReceived (names);
}

void BridgeClient::handleError (OscReader& reader)
{
    const auto number = (int) reader.integer();
    const auto code = (int) reader.integer();
    const auto address = reader.text();
    const auto text = reader.text();
    const auto isSetting = address.contains ("/stream/");
    if (isSetting && unanswered > 0)
        --unanswered;
    if (code == protocol::ErrorCode::noStream)
        listener.connectionLost (text);
    else if (! isSetting || number == lastSetting) // an error about an earlier setting no longer matters
        listener.refused (text, isSetting);
}

void BridgeClient::writeSetting (OscWriter& out)
{
    lastSetting = ++request;
    out.add (lastSetting);
    ++unanswered;
    write (out);
}

void BridgeClient::write (OscWriter& out)
{
    if (! connection.isOpen())
        return;
    const auto& data = out.framed();
    const auto* bytes = static_cast<const char*> (data.getData());
    for (size_t done = 0, tries = 0; done < data.getSize();)
    {
        const auto count = connection.write (bytes + done, (int) (data.getSize() - done), 100);
        if (count < 0 || (count == 0 && ++tries == 10))
        {
            listener.connectionLost ("the bridge no longer accepts data");
            return;
        }
        done += (size_t) count;
    }
}

} // namespace stemprover
