#include "BridgeLink.h"
#include "Start.h"

namespace stemprover
{

namespace
{
constexpr double firstPause = 0.25, longestPause = 5.0; // seconds between two tries to reach the bridge
constexpr double silenceMeansGone = 5.0, closeAfterIdle = 20.0;
constexpr double untilStarted = 10.0, untilStartedAgain = 30.0, never = -1e9; // a bridge that the plug-in has started

double now() { return juce::Time::getMillisecondCounterHiRes() * 1e-3; }

juce::String songComesLate (int samples)
{
    return "the host brings the song " + juce::String (samples) + " samples late, as late as this plug-in's output is; see docs/plugin.md";
}
} // namespace

BridgeLink::BridgeLink (Exchange& exchange, std::function<juce::String (int)> nameOf,
                        std::function<void (const juce::StringArray&)> found)
    : juce::Thread ("StemProver"),
      x (exchange),
      presetsFound (std::move (found)),
      port ((int) numberFromEnvironment ("STEMPROVER_PORT", defaultPort)),
      command (juce::SystemStats::getEnvironmentVariable ("STEMPROVER_COMMAND", {})),
      patience (numberFromEnvironment ("STEMPROVER_OFFLINE_TIMEOUT_S", 20.0)),
      client (port, juce::SystemStats::getEnvironmentVariable ("STEMPROVER_TOKEN", {}), *this),
      stream (exchange, client, std::move (nameOf))
{
    startThread();
}

BridgeLink::~BridgeLink()
{
    signalThreadShouldExit();
    notify();
    stopThread (5000); // a message takes a second at the most, and three are sent in a row
}

BridgeLink::Report BridgeLink::report() const
{
    const juce::ScopedLock hold (reporting);
    return shown;
}

void BridgeLink::say (State state, const juce::String& text)
{
    const juce::ScopedLock hold (reporting);
    shown.state = state;
    shown.message = text;
}

void BridgeLink::showWarnings()
{
    if (stream.songIsLate() && client.isOpen() && ! songIsLate)
        writeLog (songComesLate (x.latency.total()));
    songIsLate = stream.songIsLate() && client.isOpen();
    juce::String text;
    if (modelFails)
        text = "the bridge's model fails; the sound stays as it came";
    else if (settingRefused.isNotEmpty())
        text = settingRefused;
    else if (songIsLate)
        text = songComesLate (x.latency.total());
    const juce::ScopedLock hold (reporting);
    shown.warning = text;
    if (! x.givenUp.load())
        shown.failure.clear();
}

bool BridgeLink::waitFor (int64_t position)
{
    auto last = x.wetUpTo.load (std::memory_order_acquire);
    if (last >= position)
        return true;
    if (x.givenUp.load())
        return false;
    waiting.store (true);
    const juce::ScopeGuard done { [this] { waiting.store (false); } };
    for (auto since = now(); now() - since < patience;)
    {
        notify();
        progress.wait (20);
        const auto upTo = x.wetUpTo.load (std::memory_order_acquire);
        if (upTo >= position)
            return true;
        if (upTo != last)
            since = now();
        last = upTo;
    }
    x.givenUp.store (true);
    const auto seen = report();
    const auto why = seen.warning.isNotEmpty() ? seen.warning : seen.message;
    const auto text = "offline rendering goes on without repair: no answer from the bridge for " + juce::String (patience, 0)
                      + " s" + (why.isEmpty() ? juce::String() : " (" + why + ")");
    writeLog (text);
    const juce::ScopedLock hold (reporting);
    shown.failure = text;
    return false;
}

void BridgeLink::run()
{
    while (! threadShouldExit())
    {
        auto busy = false;
        auto sounds = false;
        {
            const juce::ScopedLock hold (inUse);
            busy = step();
            showWarnings();
            sounds = now() - lastSound < 0.5;
        }
        if (! busy)
            wait (sounds ? 1 : 10);
    }
    close();
}

bool BridgeLink::step()
{
    const auto heard = x.heard.load (std::memory_order_acquire);
    const auto start = x.start.load (std::memory_order_acquire);
    if (heard != lastHeard || waiting.load())
    {
        lastHeard = heard;
        lastSound = now();
    }
    if (! client.isConnected())
    {
        // Silence needs no repair, and what the side-chain is there for is known when it sounds.
        const auto silent = x.stemUpTo.load (std::memory_order_acquire) <= start && x.songUpTo.load() <= start && ! waiting.load();
        if (now() - lastSound > closeAfterIdle)
            say (State::idle);
        else if (x.channels > 0 && heard - start >= Stream::untilFirstWord && ! silent && now() >= nextTry)
            return connect();
        return false;
    }
    if (now() - lastSound > closeAfterIdle)
    {
        close();
        say (State::idle);
        return false;
    }
    auto busy = client.receive();
    if (! client.isConnected())
        return busy;
    if (now() - client.lastWord() > silenceMeansGone)
    {
        lost ("the bridge does not answer");
        return true;
    }
    if (! client.isOpen())
        return busy;
    if (now() - client.lastPing() > 1.0)
        client.ping();
    if (draining)
    {
        if (hasFlushed)
            closeAndTry (0.0);
        return busy;
    }
    if (stream.isOutdated())
    {
        closeAndTry (0.0);
        return true;
    }
    if (stream.hostHasBegunAnew())
    {
        if (! stream.catchUp())
            return busy;
        modelFails = false;
    }
    if (stream.listensWrongly())
    {
        if (! x.offline.load())
        {
            closeAndTry (0.0);
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

bool BridgeLink::connect()
{
    if (client.connect())
    {
        draining = heardBack = modelFails = false;
        settingRefused.clear();
        say (State::greeting, "greeting the bridge");
        stream.ask();
        return true;
    }
    static std::atomic<double> startedAt { never }; // one bridge serves all instances
    auto last = startedAt.load();
    if (startsBridge.load() && now() - last > untilStartedAgain && startedAt.compare_exchange_strong (last, now()))
    {
        if (startBridge (port, command))
            say (State::searching, "the bridge is starting ...");
        else
        {
            startedAt.store (never);
            say (State::searching, "no bridge: run stemprover serve");
        }
    }
    else if (now() - last > untilStarted)
        say (State::searching, "no bridge on port " + juce::String (port) + ": run stemprover serve");
    else
        say (State::searching, "the bridge is starting ...");
    pause = juce::jlimit (firstPause, longestPause, 2.0 * pause);
    nextTry = now() + pause;
    return false;
}

void BridgeLink::close()
{
    if (const auto late = x.late.load() - lateBefore; client.isOpen() && heardBack && late > 0)
        writeLog (juce::String (late) + " blocks of the host were not repaired in time");
    client.close();
    draining = modelFails = false;
    settingRefused.clear();
    progress.signal();
    const juce::ScopedLock hold (reporting);
    shown.load = 0.0f;
}

void BridgeLink::closeAndTry (double inSeconds)
{
    close();
    nextTry = now() + inSeconds;
}

void BridgeLink::streamOpened()
{
    if (stream.isOutdated())
    {
        closeAndTry (0.0);
        return;
    }
    if (client.latency() > x.latency.bridge)
    {
        say (State::refused, "the bridge is " + juce::String (client.latency()) + " samples late, more than the "
                                 + juce::String (x.latency.bridge) + " that this plug-in has promised; update both");
        closeAndTry (longestPause);
        return;
    }
    pause = 0.0;
    lastRefusal.clear();
    stream.begin();
    say (State::running);
    client.askForPresets();
}

void BridgeLink::blockCame (const BridgeClient::Block& block)
{
    if (stream.hostHasBegunAnew())
        return;
    if (block.late)
    {
        const juce::ScopedLock hold (reporting);
        ++shown.late;
    }
    if (block.untouched && x.offline.load() && stream.counts (block) && ! modelFails)
    {
        modelFails = true;
        writeLog ("the bridge's model fails: what is rendered is the sound as it came; see the bridge's log");
    }
    const auto lateSoFar = x.late.load();
    switch (stream.take (block))
    {
        case Stream::Came::known: return;
        case Stream::Came::gap: lost ("the bridge has left out a block"); return;
        case Stream::Came::sound: break;
    }
    if (! heardBack)
        lateBefore = lateSoFar; // what went out before the bridge was there is no surprise
    heardBack = true;
    x.givenUp.store (false);
    progress.signal();
}

void BridgeLink::loadTold (float load)
{
    const juce::ScopedLock hold (reporting);
    shown.load = load;
}

void BridgeLink::refused (const juce::String& why, bool isSetting)
{
    if (why != lastRefusal)
        writeLog ("the bridge: " + why);
    lastRefusal = why;
    if (client.isOpen())
    {
        if (isSetting)
            settingRefused = why;
        else if (draining)
            closeAndTry (0.0); // the rest does not come
        return;
    }
    pause = longestPause;
    closeAndTry (pause);
    say (State::refused, why);
}

void BridgeLink::lost (const juce::String& why)
{
    pause = client.isOpen() ? firstPause : juce::jlimit (firstPause, longestPause, 2.0 * pause);
    closeAndTry (pause);
    say (State::searching, why);
}

} // namespace stemprover
