#include "BridgeWorker.h"
#include "BridgeProcess.h"

namespace stemprover
{

namespace
{
// All in seconds.
constexpr double shortestPause = 0.25, longestPause = 5.0; // between two attempts to reach the bridge
constexpr double silenceLimit = 5.0;                       // a bridge that sends nothing for this long is lost
constexpr double closeAfterIdle = 20.0;
constexpr double startupTime = 10.0, restartInterval = 30.0; // of a bridge that the plug-in has started
constexpr double never = -1e9;

double now() { return juce::Time::getMillisecondCounterHiRes() * 1e-3; }

juce::String lateMixWarning (int samples)
{
    return "the host sends the mix " + juce::String (samples)
           + " samples late: it aligns the side-chain with the plug-in's output; see docs/plugin.md";
}
} // namespace

BridgeWorker::BridgeWorker (SharedState& shared, std::function<juce::String (int)> nameOf,
                            std::function<void (const juce::StringArray&)> onPresets)
    : juce::Thread ("StemProver"),
      x (shared),
      presetsCallback (std::move (onPresets)),
      port ((int) numberFromEnvironment ("STEMPROVER_PORT", protocol::port)),
      command (juce::SystemStats::getEnvironmentVariable ("STEMPROVER_COMMAND", {})),
      offlineTimeout (numberFromEnvironment ("STEMPROVER_OFFLINE_TIMEOUT_S", 20.0)),
      client (port, juce::SystemStats::getEnvironmentVariable ("STEMPROVER_TOKEN", {}), *this),
      stream (shared, client, std::move (nameOf))
{
    startThread();
}

BridgeWorker::~BridgeWorker()
{
    signalThreadShouldExit();
    notify();
    stopThread (5000); // up to three messages in a row, a second each
}

BridgeWorker::Report BridgeWorker::report() const
{
    const juce::ScopedLock hold (reporting);
    return shown;
}

void BridgeWorker::setState (State state, const juce::String& message)
{
    const juce::ScopedLock hold (reporting);
    shown.state = state;
    shown.message = message;
}

void BridgeWorker::updateWarning()
{
    if (stream.mixIsLate() && client.isOpen() && ! mixIsLate)
        writeLog (lateMixWarning (x.latency.total()));
    mixIsLate = stream.mixIsLate() && client.isOpen();
    juce::String text;
    if (modelFails)
        text = "the bridge's model fails; the track plays unrepaired";
    else if (settingError.isNotEmpty())
        text = settingError;
    else if (mixIsLate)
        text = lateMixWarning (x.latency.total());
    else
        text = sideChainProblem;
    const juce::ScopedLock hold (reporting);
    shown.warning = text;
    if (! x.gaveUp.load())
        shown.failure.clear();
}

bool BridgeWorker::waitFor (int64_t position)
{
    auto last = x.wetEnd.load (std::memory_order_acquire);
    if (last >= position)
        return true;
    if (x.gaveUp.load())
        return false;
    waiting.store (true);
    const juce::ScopeGuard done { [this] { waiting.store (false); } };
    for (auto since = now(); now() - since < offlineTimeout;)
    {
        notify();
        progress.wait (20);
        const auto wetEnd = x.wetEnd.load (std::memory_order_acquire);
        if (wetEnd >= position)
            return true;
        if (wetEnd != last)
            since = now();
        last = wetEnd;
    }
    x.gaveUp.store (true);
    const auto seen = report();
    const auto why = seen.warning.isNotEmpty() ? seen.warning : seen.message;
    const auto text = "offline rendering continues without repair: no answer from the bridge for "
                      + juce::String (offlineTimeout, 0) + " s" + (why.isEmpty() ? juce::String() : " (" + why + ")");
    writeLog (text);
    const juce::ScopedLock hold (reporting);
    shown.failure = text;
    return false;
}

void BridgeWorker::run()
{
    while (! threadShouldExit())
    {
        auto busy = false;
        auto active = false;
        {
            const juce::ScopedLock hold (inUse);
            busy = step();
            updateWarning();
            active = now() - lastAudio < 0.5;
        }
        if (! busy)
            wait (active ? 1 : 10);
    }
    close();
}

bool BridgeWorker::step()
{
    const auto received = x.received.load (std::memory_order_acquire);
    const auto start = x.start.load (std::memory_order_acquire);
    if (received != lastReceived || waiting.load())
    {
        lastReceived = received;
        lastAudio = now();
    }
    if (! client.isConnected())
    {
        // Silence needs no repair, and whether the side-chain is used is only known once something plays.
        const auto silent = x.stemEnd.load (std::memory_order_acquire) <= start && x.mixEnd.load() <= start && ! waiting.load();
        if (now() - lastAudio > closeAfterIdle)
            setState (State::idle);
        else if (x.channels > 0 && received - start >= Stream::minimumInput && ! silent && now() >= nextTry)
            return connect();
        return false;
    }
    if (now() - lastAudio > closeAfterIdle)
    {
        close();
        setState (State::idle);
        return false;
    }
    auto busy = client.receive();
    if (! client.isConnected())
        return busy;
    if (now() - client.lastReceived() > silenceLimit)
    {
        connectionLost ("the bridge does not answer");
        return true;
    }
    if (! client.isOpen())
        return busy;
    if (now() - client.lastPing() > 1.0)
        client.ping();
    if (draining)
    {
        if (hasFlushed)
            closeAndRetry (0.0);
        return busy;
    }
    if (stream.isOutdated())
    {
        closeAndRetry (0.0);
        return true;
    }
    if (stream.hostHasRestarted())
    {
        if (! stream.followHost())
            return busy;
        modelFails = false;
    }
    if (stream.needsOtherInputs())
    {
        if (! x.offline.load())
        {
            closeAndRetry (0.0);
            return true;
        }
        draining = true;
        hasFlushed = false;
        client.flush();
        return true;
    }
    while (client.isConnected() && ! threadShouldExit() && stream.send())
        busy = true;
    return busy;
}

bool BridgeWorker::connect()
{
    if (client.connect())
    {
        draining = hasWet = modelFails = false;
        settingError.clear();
        setState (State::connecting, "opening a stream");
        stream.request();
        return true;
    }
    static std::atomic<double> startedAt { never }; // all instances share one bridge
    auto last = startedAt.load();
    if (startsBridge.load() && now() - last > restartInterval && startedAt.compare_exchange_strong (last, now()))
    {
        if (startBridge (port, command))
            setState (State::searching, "the bridge is starting ...");
        else
        {
            startedAt.store (never);
            setState (State::searching, "could not start the bridge; run stemprover serve");
        }
    }
    else if (now() - last > startupTime)
        setState (State::searching, "nothing answers on port " + juce::String (port) + "; run stemprover serve");
    else
        setState (State::searching, "the bridge is starting ...");
    retryPause = juce::jlimit (shortestPause, longestPause, 2.0 * retryPause);
    nextTry = now() + retryPause;
    return false;
}

void BridgeWorker::close()
{
    if (const auto late = x.late.load() - lateBefore; client.isOpen() && hasWet && late > 0)
        writeLog (juce::String (late) + " of the host's blocks were not repaired in time");
    client.close();
    draining = modelFails = false;
    settingError.clear();
    sideChainProblem.clear();
    progress.signal();
    const juce::ScopedLock hold (reporting);
    shown.load = 0.0f;
}

void BridgeWorker::closeAndRetry (double inSeconds)
{
    close();
    nextTry = now() + inSeconds;
}

void BridgeWorker::streamOpened()
{
    if (stream.isOutdated())
    {
        closeAndRetry (0.0);
        return;
    }
    if (client.latency() > x.latency.bridge)
    {
        setState (State::refused, "the bridge's latency is " + juce::String (client.latency()) + " samples, more than the "
                                      + juce::String (x.latency.bridge) + " that this plug-in allows for; update both");
        closeAndRetry (longestPause);
        return;
    }
    retryPause = 0.0;
    lastRefusal.clear();
    stream.begin();
    setState (State::running);
    client.requestPresets();
}

void BridgeWorker::blockReceived (const BridgeClient::Block& block)
{
    if (stream.hostHasRestarted())
        return;
    if (block.late)
    {
        const juce::ScopedLock hold (reporting);
        ++shown.late;
    }
    if (block.untouched && x.offline.load() && stream.isAfterLeadIn (block) && ! modelFails)
    {
        modelFails = true;
        writeLog ("the bridge's model fails, so the render is unrepaired; see the bridge's log");
    }
    const auto lateSoFar = x.late.load();
    switch (stream.accept (block))
    {
        case Stream::Result::nothingNew: return;
        case Stream::Result::gap: connectionLost ("the bridge skipped a block"); return;
        case Stream::Result::moreWet: break;
    }
    if (! hasWet)
        lateBefore = lateSoFar; // blocks played before the bridge was there do not count
    hasWet = true;
    x.gaveUp.store (false);
    progress.signal();
}

void BridgeWorker::loadReceived (float load)
{
    const juce::ScopedLock hold (reporting);
    shown.load = load;
}

void BridgeWorker::refused (const juce::String& why, bool isSetting)
{
    if (why != lastRefusal)
        writeLog ("the bridge: " + why);
    lastRefusal = why;
    if (client.isOpen())
    {
        if (isSetting)
            settingError = why;
        else if (draining)
            closeAndRetry (0.0); // the rest will not come
        return;
    }
    retryPause = longestPause;
    closeAndRetry (retryPause);
    setState (State::refused, why);
}

void BridgeWorker::connectionLost (const juce::String& why)
{
    retryPause = client.isOpen() ? shortestPause : juce::jlimit (shortestPause, longestPause, 2.0 * retryPause);
    closeAndRetry (retryPause);
    setState (State::searching, why);
}

} // namespace stemprover
