#pragma once

#include "BridgeClient.h"
#include "Environment.h"
#include "Stream.h"

#include <juce_core/juce_core.h>

namespace stemprover
{

/** The worker thread: connects to the bridge, keeps a stream open, reconnects when either is lost, and reports its state. It
    connects only after the host has played a few thousand samples, so scanning and loading plug-ins causes no traffic. */
class BridgeWorker : private juce::Thread, private BridgeClient::Listener
{
public:
    enum class State
    {
        idle,       // no audio yet
        searching,  // no bridge
        connecting,
        running,
        refused     // the bridge answered with an error
    };

    /** What the editor shows. message: about the connection; warning: about the open stream; failure: about an offline
        render that continues without repair. */
    struct Report
    {
        State state = State::idle;
        juce::String message, warning, failure;
        int late = 0;
        float load = 0.0f;
    };

    /** nameOf: the preset's name in a slot. onPresets: called on the worker with the names of the bridge's presets. */
    BridgeWorker (SharedState&, std::function<juce::String (int slot)> nameOf,
                  std::function<void (const juce::StringArray&)> onPresets);
    ~BridgeWorker() override;

    /** Hold this while the shared state is prepared. */
    juce::CriticalSection& lock() { return inUse; }

    /** Offline, on the audio thread: waits until there is wet audio up to a position. False if no progress is made for
        `offlineTimeout`; from then on nothing is waited for until the bridge is back. */
    bool waitFor (int64_t position);

    Report report() const;
    void setStartsBridge (bool yes) { startsBridge = yes; }

private:
    void run() override;
    bool step();
    bool connect();
    void close();
    void closeAndRetry (double inSeconds);

    void streamOpened() override;
    void blockReceived (const BridgeClient::Block&) override;
    void flushed() override { hasFlushed = true; }
    void settingsAccepted() override { settingError.clear(); }
    void sideChainReported (bool fits, const juce::String& text) override { sideChainProblem = fits ? juce::String() : text; }
    void loadReceived (float load) override;
    void presetsReceived (const juce::StringArray& names) override { presetsCallback (names); }
    void refused (const juce::String& why, bool isSetting) override;
    void connectionLost (const juce::String& why) override;

    void setState (State, const juce::String& message = {});
    void updateWarning();

    SharedState& x;
    const std::function<void (const juce::StringArray&)> presetsCallback;
    const int port;
    const juce::String command;  // starts a bridge; if empty, the installed one is used
    const double offlineTimeout; // seconds

    juce::CriticalSection inUse;
    juce::WaitableEvent progress;
    BridgeClient client;
    Stream stream;

    bool draining = false, hasFlushed = false; // let the stream finish what was sent, then open another
    bool hasWet = false, modelFails = false, mixIsLate = false;
    juce::String settingError, lastRefusal, sideChainProblem;
    int lateBefore = 0;
    double nextTry = 0.0, retryPause = 0.0, lastAudio = 0.0;
    int64_t lastReceived = 0;
    std::atomic<bool> startsBridge { true }, waiting { false };

    mutable juce::CriticalSection reporting;
    Report shown;
};

} // namespace stemprover
