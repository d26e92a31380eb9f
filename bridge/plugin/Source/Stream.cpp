#include "Stream.h"
#include "Parameters.h"

namespace stemprover
{

namespace
{
constexpr int64_t mostInBlock = BridgeClient::mostInBlock, mostUnderWay = 32768;
constexpr double settingsApart = 0.1; // seconds, live

double now() { return juce::Time::getMillisecondCounterHiRes() * 1e-3; }
} // namespace

Stream::Stream (Exchange& exchange, BridgeClient& bridge, std::function<juce::String (int)> nameOfSlot)
    : x (exchange), client (bridge), nameOf (std::move (nameOfSlot))
{
}

void Stream::ask()
{
    capacity = x.sound.capacity();
    askedAt = x.heard.load();
    client.hello ({ (int) std::llround (x.sampleRate), x.channels, wantsSong() ? x.mixChannels : 0 });
}

bool Stream::isOutdated() const
{
    const auto& format = client.format();
    return format.rate != (int) std::llround (x.sampleRate) || format.channels != x.channels || capacity != x.sound.capacity()
           || (format.songChannels != 0 && format.songChannels != x.mixChannels);
}

bool Stream::wantsSong() const
{
    return x.mixChannels > 0 && (double) x.stemAlone.load() <= x.sampleRate && x.songUpTo.load() > x.start.load();
}

bool Stream::listensWrongly() const
{
    if (client.format().songChannels == 0)
        return x.mixChannels > 0 && x.songUpTo.load() > askedAt;
    return (double) x.stemAlone.load() > x.sampleRate; // a side-chain that nothing is connected to is no song
}

void Stream::begin (bool anew)
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
    if (! goesOn) // and the model knows whether the sound that it begins with has come out of silence
        first = inStep (std::max (start, first - mostInBlock));
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
    alignment.restart();
    answered = sent;
    discontinuity = true;
    x.givenUp.store (false);
}

void Stream::restart()
{
    client.reset();
    begin (true);
}

bool Stream::catchUp()
{
    if (x.heard.load (std::memory_order_acquire) - x.start.load (std::memory_order_acquire) < untilFirstWord)
        return false;
    restart();
    return true;
}

bool Stream::send()
{
    const auto offline = x.offline.load();
    const auto heard = x.heard.load (std::memory_order_acquire);
    if (heard - sent > x.sound.capacity() - mostInBlock || (! offline && heard - sent > x.latency.total()))
    {
        restart(); // too far behind to be of any use: from here on, as new
        return true;
    }
    tellSettings();
    if ((offline && client.unanswered() > 0) || sent - answered > mostUnderWay)
        return false;
    const auto count = nextCount (heard);
    if (count < 1)
        return false;
    listenToTheSong (heard, count);
    client.block (sent, (int) count, offline, discontinuity, [this] (int channel, int64_t i) { return x.sound.at (channel, sent + i); });
    discontinuity = false;
    sent += count;
    return true;
}

void Stream::listenToTheSong (int64_t heard, int64_t count)
{
    const auto needed = sent - x.latency.total();
    if (client.format().songChannels > 0 && needed >= begun && heard - needed < x.sound.capacity() - mostInBlock)
        alignment.listen (x, sent, count);
}

int64_t Stream::nextCount (int64_t heard) const
{
    int64_t change;
    Settings ahead;
    if (x.nextSettings (change, ahead) && change > sent && change < sent + mostInBlock)
        return std::min (heard, change) - sent; // what changes there is told in between
    // The bridge waits half a block's duration for the model: long blocks are seldom late, and leave room for the host's.
    const auto count = std::min<int64_t> (heard - sent, mostInBlock);
    return count - count % std::min<int64_t> (mostInBlock, x.latency.chunk());
}

Stream::Came Stream::take (const BridgeClient::Block& block)
{
    if (block.channels != x.wet.channels())
        return Came::known;
    answered = std::max (answered, block.position + block.count);
    const auto first = block.position - client.latency();
    const auto end = first + block.count;
    const auto upTo = x.wetUpTo.load (std::memory_order_relaxed);
    if (std::max (first, accepted) > upTo)
        return Came::gap;
    // What another stream has made before goes over into this one's within the last of it, which nobody has played yet.
    const auto reserve = (int64_t) x.latency.reserve;
    if (seamed)
        for (auto at = std::max (first, accepted - reserve); at < std::min (end, accepted); ++at)
            for (int c = 0; c < block.channels; ++c)
            {
                auto& old = x.wet.at (c, at);
                old += (float) (at - accepted + reserve + 1) / (float) (reserve + 1) * (block.sample (c, at - first) - old);
            }
    if (end <= upTo)
        return Came::known;
    for (auto at = upTo; at < end; ++at)
        for (int c = 0; c < block.channels; ++c)
            x.wet.at (c, at) = block.sample (c, at - first);
    x.wetUpTo.store (end, std::memory_order_release);
    return Came::sound;
}

void Stream::tellSettings()
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
        return;
    if (! x.offline.load() && toldAny && (now() - lastTold < settingsApart || client.unanswered() > 0))
        return; // with a later block: each costs the bridge a model
    // The preset last: it is loaded at the quality that holds by then.
    if (wanted.quality != (toldAny ? told.quality : 1))
        client.quality (Presets::qualities[(size_t) wanted.quality]);
    tellPreset (wanted);
    told = wanted;
    toldAny = true;
    lastTold = now();
}

void Stream::tellPreset (const Settings& settings)
{
    const auto name = nameOf (settings.preset);
    if (name != Presets::blend)
    {
        if (name.isNotEmpty())
            client.preset (name);
        return;
    }
    juce::StringArray names;
    std::vector<float> weights;
    for (size_t i = 0; i < settings.blend.size(); ++i)
        if (settings.blend[i] > 0.0f)
        {
            names.add (Presets::adapters[i]);
            weights.push_back (settings.blend[i]);
        }
    if (names.isEmpty())
        client.preset ("general");
    else
        client.blend (names, weights);
}

} // namespace stemprover
