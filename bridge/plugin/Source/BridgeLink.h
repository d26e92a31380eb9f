#pragma once

#include "BridgeClient.h"
#include "Playback.h"
#include "Stream.h"

#include <juce_core/juce_core.h>

namespace stemprover
{

/** The worker: reaches the bridge, keeps a stream with it, starts over where either ends, and knows how it goes. It says
    nothing to anybody before the host has played a few thousand samples, so scanning and loading stay silent. */
class BridgeLink : private juce::Thread, private BridgeClient::Listener
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

    /** What there is to show: the message is about the connection, the warning about a stream that runs, the failure about
        a render that goes on without it. */
    struct Report
    {
        State state = State::idle;
        juce::String message, warning, failure;
        int late = 0;
        float load = 0.0f;
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
    void close();
    void closeAndTry (double inSeconds);

    void streamOpened() override;
    void blockCame (const BridgeClient::Block&) override;
    void flushed() override { hasFlushed = true; }
    void settingsTaken() override { settingRefused.clear(); }
    void loadTold (float load) override;
    void presetsTold (const juce::StringArray& names) override { presetsFound (names); }
    void refused (const juce::String& why, bool isSetting) override;
    void lost (const juce::String& why) override;

    void say (State, const juce::String& message = {});
    void showWarnings();

    Exchange& x;
    const std::function<void (const juce::StringArray&)> presetsFound;
    const int port;
    const juce::String command; // that starts a bridge, where it is not to be looked for
    const double patience;      // in seconds

    juce::CriticalSection inUse;
    juce::WaitableEvent progress;
    BridgeClient client;
    Stream stream;

    bool draining = false, hasFlushed = false; // what is under way is waited for, then another stream is opened
    bool heardBack = false, modelFails = false, songIsLate = false;
    juce::String settingRefused, lastRefusal;
    int lateBefore = 0;
    double nextTry = 0.0, pause = 0.0, lastSound = 0.0;
    int64_t lastHeard = 0;
    std::atomic<bool> startsBridge { true }, waiting { false };

    mutable juce::CriticalSection reporting;
    Report shown;
};

} // namespace stemprover
