#pragma once

#include "Connection.h"
#include "Osc.h"
#include "Playback.h"

#include <juce_core/juce_core.h>
#include <juce_events/juce_events.h>

namespace stemprover
{

/** The worker: owns the connection to the bridge, sends what the host plays and puts what comes back in its place. It
    says nothing to anybody before the host has played a few thousand samples, so scanning and loading stay silent. */
class BridgeLink : private juce::Thread
{
public:
    enum class State
    {
        idle,       // no sound yet
        searching,  // no bridge
        greeting,
        running,
        refused     // the bridge is there and says no
    };

    /** What there is to show. */
    struct Report
    {
        State state = State::idle;
        juce::String message;
        int late = 0;
        float load = 0.0f;
        int latency = 0;
    };

    /** nameOf: a preset's slot to its name. presetsFound: with the names of the bridge's presets, on the worker. */
    BridgeLink (Exchange&, std::function<juce::String (int slot)> nameOf,
                std::function<void (const juce::StringArray&)> presetsFound);
    ~BridgeLink() override;

    /** Hold this while the exchange is being prepared. */
    juce::CriticalSection& lock() { return inUse; }

    /** Offline, on the audio thread: waits until the wet sound has come up to a position; false where that takes longer
        than `patience`, after which nothing is waited for until the bridge is back. */
    bool waitFor (int64_t position);

    Report report() const;
    void setStartsBridge (bool yes) { startsBridge = yes; }

    static constexpr int defaultPort = 9140;

private:
    void run() override;
    bool step();
    bool connect();
    void hello();
    void begin (bool anew);
    void close();
    void lose (const juce::String& why);
    bool receive();
    void hear (OscReader&);
    void takeBlock (OscReader&);
    bool sendSettings();
    void sendPreset (const Settings&);
    bool sendBlock();
    void write (OscWriter&);
    bool wantsSong() const;
    bool listensWrongly() const;
    void say (State, const juce::String& message = {});

    Exchange& x;
    const std::function<juce::String (int)> nameOf;
    const std::function<void (const juce::StringArray&)> presetsFound;
    const int port;
    const juce::String token;
    const double patience; // in seconds

    juce::CriticalSection inUse;
    juce::WaitableEvent progress;
    Connection connection;
    FrameReader frames;
    std::vector<char> message, incoming;
    std::vector<float> interleaved;

    bool greeted = false, draining = false, flushed = false, heardBack = false, toldUntouched = false, seamed = false;
    int lateBefore = 0;
    int stream = 0, bridgeLatency = 0;
    double openRate = 0.0;
    int openChannels = 0, openSong = 0, openCapacity = 0;
    int64_t opened = 0;                 // Exchange::heard when the stream was opened
    int64_t begun = Exchange::nowhere;  // Exchange::start of the run that is sent
    int64_t sent = 0, answered = 0;     // positions
    int64_t accepted = 0;               // wet sound counts from here on
    int sequence = 0, request = 0;
    int unacknowledged = 0;
    bool discontinuity = false;
    Settings told, wanted;
    bool toldAny = false, wantedAny = false;
    double nextTry = 0.0, pause = 0.0, lastWord = 0.0, lastPing = 0.0, lastTold = 0.0, lastSound = 0.0;
    int64_t lastHeard = 0;
    std::atomic<bool> startsBridge { true }, waiting { false };

    mutable juce::CriticalSection reporting;
    Report shown;
};

} // namespace stemprover
