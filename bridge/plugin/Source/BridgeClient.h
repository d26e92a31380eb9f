#pragma once

#include "Connection.h"
#include "Generated.h"
#include "Osc.h"

namespace stemprover
{

/** The bridge's messages (docs/osc.md) on one connection that carries one stream: a method for each message sent, a method
    of the listener for each received. For one thread. Sending a message takes a second at most. */
class BridgeClient
{
public:
    /** The format of a stream. */
    struct Format
    {
        int rate = 0;
        int channels = 0, mixChannels = 0;
    };

    /** The bridge's answer to `count` samples sent from `position`: the audio of `latency()` samples earlier. */
    struct Block
    {
        int64_t position = 0, count = 0;
        int channels = 0;
        bool late = false, untouched = false; // either way, the audio is as it was sent
        const char* samples = nullptr;

        float sample (int channel, int64_t index) const;
    };

    class Listener
    {
    public:
        virtual ~Listener() = default;
        virtual void streamOpened() = 0;
        virtual void blockReceived (const Block&) = 0;
        virtual void flushed() = 0;
        /** The bridge accepted the settings that were sent last. */
        virtual void settingsAccepted() = 0;
        virtual void loadReceived (float load) = 0;
        /** What the bridge knows of the side-chain, in words. fits: false if it is left out. */
        virtual void sideChainReported (bool fits, const juce::String& text) = 0;
        virtual void presetsReceived (const juce::StringArray& names) = 0;
        /** The bridge sent an error. isSetting: it concerns the settings that were sent last. */
        virtual void refused (const juce::String& why, bool isSetting) = 0;
        /** The connection is unusable; the listener should close it. */
        virtual void connectionLost (const juce::String& why) = 0;
    };

    BridgeClient (int port, juce::String token, Listener&);

    /** False if nothing answers on the port. */
    bool connect();
    void hello (const Format&);
    void ping();
    void requestPresets();
    void preset (const juce::String& name);
    void blend (const juce::StringArray& names, const std::vector<float>& weights);
    void quality (const juce::String& name);
    void role (const juce::String& name);
    /** get (channel, index): the samples to send, the stem's channels before the mix's. */
    template <typename Get>
    void block (int64_t position, int count, bool offline, bool discontinuity, Get get);
    void reset();
    void flush();
    /** Closes the stream, if one is open, and the connection. */
    void close();

    /** Handles all messages that have arrived. False if there were none. */
    bool receive();

    bool isConnected() const { return connection.isOpen(); }
    bool isOpen() const { return opened; }
    const Format& format() const { return requested; }
    int latency() const { return bridgeLatency; }
    /** The number of settings that the bridge has not answered yet. */
    int unansweredSettings() const { return unanswered; }
    /** Times in seconds: when the bridge last sent anything, and when it was last pinged. */
    double lastReceived() const { return receivedAt; }
    double lastPing() const { return pingedAt; }

    static constexpr int maxBlock = 2048; // samples
    static_assert (maxBlock <= protocol::maxBlock);

private:
    void handle (OscReader&);
    void handleReady (OscReader&);
    void handleBlock (OscReader&);
    void handleAck (OscReader&);
    void handleMix (OscReader&);
    void handlePong (OscReader&);
    void handlePresets (OscReader&);
    void handleError (OscReader&);
    juce::String streamAddress (const char* setting) const { return "/stream/" + juce::String (stream) + setting; }
    void writeSetting (OscWriter&);
    void write (OscWriter&);

    const int port;
    const juce::String token;
    Listener& listener;
    Connection connection;
    FrameReader frames;
    std::vector<char> message, incoming;
    Format requested;
    bool opened = false;
    int stream = 0, bridgeLatency = 0, request = 0, sequence = 0;
    int unanswered = 0, lastSetting = 0; // settings without an answer; the request number of the last setting
    double receivedAt = 0.0, pingedAt = 0.0;
};

template <typename Get>
void BridgeClient::block (int64_t position, int count, bool offline, bool discontinuity, Get get)
{
    using Flag = protocol::BlockFlag;
    const auto channels = requested.channels + requested.mixChannels;
    OscWriter out ("/block", "iihiib");
    out.add (stream).add (sequence++).add ((juce::int64) position).add (count);
    out.add ((offline ? Flag::offline : 0) | (discontinuity ? Flag::discontinuity : 0));
    auto* to = static_cast<char*> (out.addBlob ((size_t) (count * channels) * sizeof (float)));
    for (int i = 0; i < count; ++i)
        for (int c = 0; c < channels; ++c, to += sizeof (float))
        {
            const auto value = juce::ByteOrder::swapIfBigEndian ((float) get (c, i));
            std::memcpy (to, &value, sizeof (float));
        }
    write (out);
}

} // namespace stemprover
