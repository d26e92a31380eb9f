#include "BridgeLink.h"
#include "Parameters.h"
#include "Start.h"

namespace stemprover
{

namespace
{
constexpr int flagOffline = 1, flagDiscontinuity = 2, statusLate = 1, statusUntouched = 2, errorNoStream = 7;
constexpr int mostInBlock = 2048;
constexpr int64_t untilFirstWord = 4096; // samples of sound before anybody is spoken to: hosts try a plug-in with less
constexpr int64_t mostUnderWay = 32768;
constexpr double firstPause = 0.25, longestPause = 5.0; // seconds between two tries to reach the bridge
constexpr double silenceMeansGone = 5.0, closeAfterIdle = 20.0, settingsApart = 0.1;
constexpr int protocolVersion = 1;

double now() { return juce::Time::getMillisecondCounterHiRes() * 1e-3; }
} // namespace

BridgeLink::BridgeLink (Exchange& exchange, std::function<juce::String (int)> nameOfSlot,
                        std::function<void (const juce::StringArray&)> found)
    : juce::Thread ("StemProver"),
      x (exchange),
      nameOf (std::move (nameOfSlot)),
      presetsFound (std::move (found)),
      port ((int) numberFromEnvironment ("STEMPROVER_PORT", defaultPort)),
      token (juce::SystemStats::getEnvironmentVariable ("STEMPROVER_TOKEN", {})),
      patience (numberFromEnvironment ("STEMPROVER_OFFLINE_TIMEOUT_S", 20.0))
{
    incoming.resize (1 << 18);
    startThread();
}

BridgeLink::~BridgeLink()
{
    signalThreadShouldExit();
    notify();
    stopThread (5000); // nothing in it waits for longer than a second
}

BridgeLink::Report BridgeLink::report() const
{
    const juce::ScopedLock hold (reporting);
    return shown;
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
    const auto why = report().message;
    const auto text = "offline rendering goes on without repair: no answer from the bridge for " + juce::String (patience, 0)
                      + " s" + (why.isEmpty() ? juce::String() : " (" + why + ")");
    writeLog (text);
    const juce::ScopedLock hold (reporting);
    shown.message = text;
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
            sounds = now() - lastSound < 0.5;
        }
        if (! busy)
            wait (sounds ? 1 : 10);
    }
    if (connection.isOpen() && greeted)
    {
        OscWriter bye ("/close", "ii");
        bye.add (++request).add (stream);
        write (bye);
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
    if (! connection.isOpen())
    {
        // Silence needs no repair, and what the side-chain is there for is known when it sounds.
        const auto silent = x.stemUpTo.load (std::memory_order_acquire) <= start && x.songUpTo.load() <= start && ! waiting.load();
        if (x.channels == 0 || heard - start < untilFirstWord || silent || now() - lastSound > closeAfterIdle || now() < nextTry)
            return false;
        return connect();
    }
    if (now() - lastSound > closeAfterIdle)
    {
        close();
        say (State::idle);
        return false;
    }
    auto busy = receive();
    if (! connection.isOpen())
        return busy;
    if (now() - lastWord > silenceMeansGone)
    {
        lose ("the bridge does not answer");
        return true;
    }
    if (! greeted)
        return busy;
    if (now() - lastPing > 1.0)
    {
        lastPing = now();
        OscWriter ping ("/ping", "id");
        ping.add (++request).add (lastPing);
        write (ping);
    }
    if (draining)
    {
        if (flushed)
        {
            close();
            nextTry = 0.0;
        }
        return busy;
    }
    if (openRate != x.sampleRate || openChannels != x.channels || openCapacity != (int) x.sound.capacity()
        || (openSong != 0 && openSong != x.mixChannels))
    {
        close(); // another stream altogether
        nextTry = 0.0;
        return true;
    }
    if (begun != start)
    {
        if (heard - start < untilFirstWord)
            return busy;
        OscWriter reset ("/reset", "ii");
        reset.add (++request).add (stream);
        write (reset);
        begin (true);
    }
    if (listensWrongly())
    {
        if (! x.offline.load())
        {
            close();
            nextTry = 0.0;
            return true;
        }
        OscWriter flush ("/flush", "ii");
        flush.add (++request).add (stream);
        draining = true;
        flushed = false;
        write (flush);
        return true;
    }
    while (connection.isOpen() && sendBlock())
        busy = true;
    return busy;
}

bool BridgeLink::connect()
{
    if (! connection.open (port, 250))
    {
        static std::atomic<double> startedAt { -1e9 }; // one bridge serves all instances
        auto startedBridge = startedAt.load();
        if (startsBridge.load() && now() - startedBridge > 30.0 && startedAt.compare_exchange_strong (startedBridge, now()))
        {
            if (startBridge (port))
                say (State::searching, "starting the bridge ...");
            else
                say (State::searching, "no bridge: run stemprover serve");
        }
        else if (now() - startedBridge > 10.0)
            say (State::searching, "no bridge on port " + juce::String (port) + ": run stemprover serve");
        pause = juce::jlimit (firstPause, longestPause, 2.0 * pause);
        nextTry = now() + pause;
        return false;
    }
    frames.clear();
    greeted = draining = heardBack = toldUntouched = false;
    lastWord = now();
    hello();
    return true;
}

void BridgeLink::hello()
{
    openRate = x.sampleRate;
    openChannels = x.channels;
    openCapacity = (int) x.sound.capacity();
    openSong = wantsSong() ? x.mixChannels : 0;
    opened = x.heard.load();
    say (State::greeting, "greeting the bridge");
    OscWriter word ("/hello", "isssiiiii");
    word.add (++request).add (token).add (juce::String ("plug-in")).add (juce::String ("stream"));
    word.add ((int) std::llround (openRate)).add (mostInBlock).add (openChannels).add (openSong).add (protocolVersion);
    write (word);
}

bool BridgeLink::wantsSong() const
{
    if (x.mixChannels == 0)
        return false;
    const auto start = x.start.load();
    return (double) x.stemAlone.load() <= x.sampleRate && x.songUpTo.load() > start;
}

bool BridgeLink::listensWrongly() const
{
    if (openSong == 0)
        return x.mixChannels > 0 && x.songUpTo.load() > opened;
    return (double) x.stemAlone.load() > x.sampleRate; // a side-chain that nothing is connected to is no song
}

void BridgeLink::begin (bool anew)
{
    const auto start = x.start.load (std::memory_order_acquire);
    const auto heard = x.heard.load (std::memory_order_acquire);
    const auto upTo = x.wetUpTo.load();
    auto first = heard;
    auto goesOn = false;
    if (x.offline.load() && ! x.givenUp.load())
    {
        const auto due = std::max (start, x.due.load (std::memory_order_acquire));
        goesOn = ! anew && begun == start && upTo >= due && upTo != Exchange::nowhere;
        first = goesOn ? upTo : due;
    }
    else if (heard - start <= x.latency.blocks / 2 + untilFirstWord)
        first = start;
    // The model's frames lie as in a file that begins where the host began, however late the bridge came.
    const auto inStep = [start] (int64_t position) { return start + std::max<int64_t> (0, position - start) / mostInBlock * mostInBlock; };
    if (! goesOn)
        first = inStep (first);
    accepted = sent = first;
    seamed = goesOn;
    if (goesOn) // the model hears again what was before the break, as far as there is any
        sent = inStep (first - std::max<int64_t> (0, x.sound.capacity() - (heard - first) - 3 * mostInBlock));
    else
    {
        // Playback reads in the other order.
        x.wetUpTo.store (Exchange::nowhere, std::memory_order_release);
        x.wetFrom.store (first, std::memory_order_release);
        x.wetUpTo.store (first, std::memory_order_release);
    }
    begun = start;
    answered = sent;
    discontinuity = true;
    x.givenUp.store (false);
}

void BridgeLink::close()
{
    if (const auto late = x.late.load() - lateBefore; greeted && heardBack && late > 0)
        writeLog (juce::String (late) + " blocks of the host were not repaired in time");
    connection.close();
    greeted = draining = false;
    toldAny = false;
    unacknowledged = 0;
    progress.signal();
}

void BridgeLink::lose (const juce::String& why)
{
    close();
    pause = firstPause;
    nextTry = now() + pause;
    say (State::searching, why);
}

bool BridgeLink::receive()
{
    auto any = false;
    while (connection.isOpen())
    {
        const auto count = connection.read (incoming.data(), (int) incoming.size());
        if (count == 0)
            break;
        if (count < 0)
        {
            lose ("the bridge has gone");
            return true;
        }
        any = true;
        lastWord = now();
        frames.feed (incoming.data(), (size_t) count);
        while (connection.isOpen() && frames.next (message))
        {
            OscReader reader (message.data(), message.size());
            if (! reader.failed)
                hear (reader);
        }
        if (frames.broken)
        {
            lose ("what answers on port " + juce::String (port) + " is no bridge");
            return true;
        }
    }
    return any;
}

void BridgeLink::hear (OscReader& reader)
{
    const auto& address = reader.address();
    if (address == "/block")
        takeBlock (reader);
    else if (address == "/ready")
    {
        reader.integer();
        reader.integer();
        stream = (int) reader.integer();
        reader.integer();
        bridgeLatency = (int) reader.integer();
        if (reader.failed)
            return;
        if (bridgeLatency > x.latency.bridge)
        {
            say (State::refused, "the bridge is " + juce::String (bridgeLatency) + " samples late, more than the "
                                     + juce::String (x.latency.bridge) + " that this plug-in has promised; update both");
            close();
            nextTry = now() + longestPause;
            return;
        }
        greeted = true;
        pause = 0.0;
        begin (false);
        toldAny = false;
        say (State::running);
        OscWriter ask ("/presets", "i");
        ask.add (++request);
        write (ask);
    }
    else if (address == "/ack")
    {
        reader.integer();
        const auto what = reader.text();
        if (what.endsWith ("/flush"))
            flushed = true;
        else if (! what.endsWith ("/reset") && unacknowledged > 0)
            --unacknowledged;
    }
    else if (address == "/pong")
    {
        reader.integer();
        reader.number();
        reader.number();
        reader.number();
        reader.integer();
        reader.integer();
        reader.integer();
        const auto load = (float) reader.number();
        const juce::ScopedLock hold (reporting);
        shown.load = load;
    }
    else if (address == "/presets")
    {
        reader.integer();
        juce::StringArray names;
        while (reader.more() && ! reader.failed)
        {
            names.add (reader.text());
            reader.text();
        }
        if (! reader.failed)
            presetsFound (names);
    }
    else if (address == "/error")
    {
        reader.integer();
        const auto code = (int) reader.integer();
        const auto about = reader.text();
        const auto text = reader.text();
        if (code == errorNoStream)
        {
            lose (text);
            return;
        }
        if (unacknowledged > 0 && about.contains ("/stream/"))
            --unacknowledged;
        writeLog ("the bridge: " + text);
        if (! greeted)
        {
            close();
            pause = longestPause;
            nextTry = now() + pause;
            say (State::refused, text);
        }
        else
            say (State::running, text);
    }
    else if (address == "/goodbye")
        lose ("the bridge has stopped");
}

void BridgeLink::takeBlock (OscReader& reader)
{
    reader.integer();
    reader.integer();
    const auto position = (int64_t) reader.integer();
    const auto count = (int64_t) reader.integer();
    reader.integer();
    const auto status = (int) reader.integer();
    reader.integer();
    reader.integer();
    const auto [bytes, size] = reader.blob();
    if (reader.failed || ! greeted || count < 1 || size != (size_t) count * (size_t) openChannels * sizeof (float)
        || openChannels != x.wet.channels() || begun != x.start.load())
        return;
    answered = std::max (answered, position + count);
    if (status == statusLate)
    {
        const juce::ScopedLock hold (reporting);
        ++shown.late;
    }
    const auto first = position - bridgeLatency;
    const auto upTo = x.wetUpTo.load (std::memory_order_relaxed);
    if (std::max (first, accepted) > upTo)
    {
        lose ("the bridge has left out a block");
        return;
    }
    const auto sample = [&, source = bytes] (int channel, int64_t at) {
        const auto bits = juce::ByteOrder::littleEndianInt (source + ((at - first) * openChannels + channel) * (int64_t) sizeof (float));
        float value;
        std::memcpy (&value, &bits, sizeof (float));
        return value;
    };
    if (status == statusUntouched && x.offline.load() && first >= accepted && ! toldUntouched)
    {
        toldUntouched = true;
        writeLog ("the bridge's model fails: what is rendered is the sound as it came; see the bridge's log");
        say (State::running, "the bridge's model fails; the sound stays as it came");
    }
    // What another stream has made before goes over into this one's within the last of it, which nobody has played yet.
    const auto reserve = (int64_t) x.latency.reserve;
    if (seamed)
        for (auto at = std::max (first, accepted - reserve); at < std::min (first + count, accepted); ++at)
            for (int c = 0; c < openChannels; ++c)
            {
                auto& old = x.wet.at (c, at);
                old += (float) (at - accepted + reserve + 1) / (float) (reserve + 1) * (sample (c, at) - old);
            }
    if (first + count <= upTo)
        return;
    if (! heardBack)
        lateBefore = x.late.load(); // what went out before the bridge was there is no surprise
    heardBack = true;
    for (auto at = upTo; at < first + count; ++at)
        for (int c = 0; c < openChannels; ++c)
            x.wet.at (c, at) = sample (c, at);
    x.wetUpTo.store (first + count, std::memory_order_release);
    x.givenUp.store (false);
    progress.signal();
}

bool BridgeLink::sendSettings()
{
    // Everything that holds from what is sent next on; the last one counts.
    int64_t position;
    Settings next;
    while (x.nextSettings (position, next) && position <= sent)
    {
        wanted = next;
        wantedAny = true;
        x.takeSettings();
    }
    if (! wantedAny || (toldAny && wanted == told))
        return true;
    if (! x.offline.load() && toldAny && now() - lastTold < settingsApart)
        return true; // with a later block: each costs the bridge a model
    sendPreset (wanted);
    told = wanted;
    toldAny = true;
    lastTold = now();
    return true;
}

void BridgeLink::sendPreset (const Settings& settings)
{
    const auto to = "/stream/" + juce::String (stream);
    const auto name = nameOf (settings.preset);
    if (name == Presets::blend)
    {
        juce::StringArray names;
        std::vector<float> weights;
        for (size_t i = 0; i < settings.blend.size(); ++i)
            if (settings.blend[i] > 0.0f)
            {
                names.add (Presets::adapters[i]);
                weights.push_back (settings.blend[i]);
            }
        if (names.isEmpty())
        {
            OscWriter word (to + "/preset", "si");
            word.add (juce::String ("general")).add (++request);
            write (word);
        }
        else
        {
            OscWriter word (to + "/blend", (juce::String::repeatedString ("sf", names.size()) + "i").toRawUTF8());
            for (int i = 0; i < names.size(); ++i)
                word.add (names[i]).add (weights[(size_t) i]);
            word.add (++request);
            write (word);
        }
        ++unacknowledged;
    }
    else if (name.isNotEmpty())
    {
        OscWriter word (to + "/preset", "si");
        word.add (name).add (++request);
        write (word);
        ++unacknowledged;
    }
    if (! toldAny ? settings.quality != 1 : settings.quality != told.quality)
    {
        OscWriter word (to + "/quality", "si");
        word.add (juce::String (Presets::qualities[(size_t) settings.quality])).add (++request);
        write (word);
        ++unacknowledged;
    }
}

bool BridgeLink::sendBlock()
{
    const auto offline = x.offline.load();
    const auto heard = x.heard.load (std::memory_order_acquire);
    if (heard - sent > x.sound.capacity() - mostInBlock || (! offline && heard - sent > x.latency.total()))
    {
        // Too far behind to be of any use: from here on, as new.
        OscWriter reset ("/reset", "ii");
        reset.add (++request).add (stream);
        write (reset);
        begin (true);
        return connection.isOpen();
    }
    if (! sendSettings() || (offline && unacknowledged > 0) || sent - answered > mostUnderWay)
        return false;
    auto count = std::min<int64_t> (heard - sent, mostInBlock);
    // The bridge waits half a block's duration for the model: long blocks are seldom late, and leave room for the host's.
    count -= count % std::min (mostInBlock, x.latency.chunk());
    int64_t change;
    Settings ahead;
    if (x.nextSettings (change, ahead) && change > sent && change < sent + mostInBlock)
        count = std::min (heard, change) - sent; // what changes there is told in between
    if (count < 1)
        return false;

    const auto total = openChannels + openSong;
    OscWriter block ("/block", "iihiib");
    block.add (stream).add (sequence++).add ((juce::int64) sent).add ((int) count);
    block.add ((offline ? flagOffline : 0) | (discontinuity ? flagDiscontinuity : 0));
    discontinuity = false;
    auto* to = static_cast<float*> (block.addBlob ((size_t) count * (size_t) total * sizeof (float)));
    for (int64_t i = 0; i < count; ++i)
        for (int c = 0; c < total; ++c)
        {
            const auto value = juce::ByteOrder::swapIfBigEndian (x.sound.at (c, sent + i));
            std::memcpy (to++, &value, sizeof (float));
        }
    write (block);
    sent += count;
    return true;
}

void BridgeLink::write (OscWriter& word)
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
            lose ("the bridge takes nothing more");
            return;
        }
        done += (size_t) count;
    }
}

void BridgeLink::say (State state, const juce::String& text)
{
    const juce::ScopedLock hold (reporting);
    shown.state = state;
    shown.message = text;
    shown.latency = bridgeLatency;
}

} // namespace stemprover
