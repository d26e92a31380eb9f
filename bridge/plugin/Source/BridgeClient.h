#pragma once

#include "Connection.h"
#include "Osc.h"

namespace stemprover
{

/** The bridge's messages (docs/osc.md) over one connection that carries one stream: a method for each that is sent, one of
    the listener's for each that comes. For one thread; to send a message takes a second at the most. */
class BridgeClient
{
public:
    /** What a stream is opened with. */
    struct Format
    {
        int rate = 0;
        int channels = 0, songChannels = 0;
    };

    /** What comes back for `count` samples that were sent as from `position`: the sound of `latency()` samples before. */
    struct Block
    {
        int64_t position = 0, count = 0;
        int channels = 0;
        bool late = false, untouched = false; // both: the sound as it was sent
        const char* samples = nullptr;

        float sample (int channel, int64_t index) const;
    };

    class Listener
    {
    public:
        virtual ~Listener() = default;
        virtual void streamOpened() = 0;
        virtual void blockCame (const Block&) = 0;
        virtual void flushed() = 0;
        /** The last of the settings that were sent holds, or is on its way to. */
        virtual void settingsTaken() = 0;
        virtual void loadTold (float load) = 0;
        virtual void presetsTold (const juce::StringArray& names) = 0;
        /** An error; isSetting: about the last of the settings, and nothing else. */
        virtual void refused (const juce::String& why, bool isSetting) = 0;
        /** The connection is of no use any more; whoever listens closes it. */
        virtual void lost (const juce::String& why) = 0;
    };

    BridgeClient (int port, juce::String token, Listener&);

    /** To the bridge, or false. */
    bool connect();
    void hello (const Format&);
    void ping();
    void askForPresets();
    void preset (const juce::String& name);
    void blend (const juce::StringArray& names, const std::vector<float>& weights);
    void quality (const juce::String& name);
    /** get(channel, index): the samples, the song's channels behind the stem's. */
    template <typename Get>
    void block (int64_t position, int count, bool offline, bool discontinuity, Get get);
    void reset();
    void flush();
    /** Ends the stream, where one is open, and the connection. */
    void close();

    /** Listens to what has come; false where nothing has. */
    bool receive();

    bool isConnected() const { return connection.isOpen(); }
    bool isOpen() const { return opened; }
    const Format& format() const { return asked; }
    int latency() const { return bridgeLatency; }
    /** Settings that the bridge has not answered yet. */
    int unanswered() const { return waiting; }
    /** When the bridge was heard last, and when it was asked for a sign of life, in seconds. */
    double lastWord() const { return heardAt; }
    double lastPing() const { return pingedAt; }

    static constexpr int mostInBlock = 2048;

private:
    void hear (OscReader&);
    void hearReady (OscReader&);
    void hearBlock (OscReader&);
    void hearAck (OscReader&);
    void hearPong (OscReader&);
    void hearPresets (OscReader&);
    void hearError (OscReader&);
    juce::String ofStream (const char* what) const { return "/stream/" + juce::String (stream) + what; }
    void writeSetting (OscWriter&);
    void write (OscWriter&);

    const int port;
    const juce::String token;
    Listener& listener;
    Connection connection;
    FrameReader frames;
    std::vector<char> message, incoming;
    Format asked;
    bool opened = false;
    int stream = 0, bridgeLatency = 0, request = 0, sequence = 0;
    int waiting = 0, lastSetting = 0; // settings without an answer; the last one's request
    double heardAt = 0.0, pingedAt = 0.0;
};

template <typename Get>
void BridgeClient::block (int64_t position, int count, bool offline, bool discontinuity, Get get)
{
    constexpr int flagOffline = 1, flagDiscontinuity = 2;
    const auto channels = asked.channels + asked.songChannels;
    OscWriter word ("/block", "iihiib");
    word.add (stream).add (sequence++).add ((juce::int64) position).add (count);
    word.add ((offline ? flagOffline : 0) | (discontinuity ? flagDiscontinuity : 0));
    auto* to = static_cast<char*> (word.addBlob ((size_t) (count * channels) * sizeof (float)));
    for (int i = 0; i < count; ++i)
        for (int c = 0; c < channels; ++c, to += sizeof (float))
        {
            const auto value = juce::ByteOrder::swapIfBigEndian ((float) get (c, i));
            std::memcpy (to, &value, sizeof (float));
        }
    write (word);
}

} // namespace stemprover
