#include "Playback.h"

#include <algorithm>

namespace stemprover
{

bool Exchange::putSettings (int64_t position, const Settings& settings)
{
    const auto mine = put.load (std::memory_order_relaxed);
    if (mine - taken.load (std::memory_order_acquire) == places)
        return false;
    queue[mine % places] = { position, settings };
    put.store (mine + 1, std::memory_order_release);
    return true;
}

bool Exchange::nextSettings (int64_t& position, Settings& settings) const
{
    const auto mine = taken.load (std::memory_order_relaxed);
    if (mine == put.load (std::memory_order_acquire))
        return false;
    std::tie (position, settings) = queue[mine % places];
    return true;
}

void Playback::prepare (double sampleRate, int channels, int mixChannels, int maxBlock)
{
    const auto latency = Latency::of (sampleRate);
    const auto room = 2 * ((int64_t) latency.total() + std::max (maxBlock, most));
    if (sampleRate != x.sampleRate || channels != x.channels || mixChannels != x.mixChannels || room > x.sound.capacity())
    {
        x.sampleRate = sampleRate;
        x.channels = channels;
        x.mixChannels = mixChannels;
        x.latency = latency;
        x.sound.prepare (channels + mixChannels, room);
        x.wet.prepare (channels, room);
        dryCopy.assign ((size_t) channels, std::vector<float> (most));
        dryPointers.clear();
        for (auto& channel : dryCopy)
            dryPointers.push_back (channel.data());
    }
    const auto straight = (float) (1.0 / (0.02 * sampleRate));
    share.step = audible.step = 1.0f / (float) x.latency.reserve;
    amount.step = gain.step = straight;
    restart();
}

void Playback::restart()
{
    // Wet sound of before needs no clearing: it ends before the first position that is played from here on.
    const auto here = x.heard.load (std::memory_order_relaxed);
    x.due.store (here, std::memory_order_release);
    x.start.store (here, std::memory_order_release);
    x.stemAlone.store (0, std::memory_order_relaxed);
    x.givenUp.store (false, std::memory_order_relaxed);
    held = Exchange::nowhere;
    fresh = true;
    everReady = false;
    toldAny = false;
}

void Playback::process (float* const* stem, const float* const* song, int count, const Settings& settings,
                        const Controls& controls, const std::function<bool (int64_t)>& wait, bool silenceOnFailure)
{
    // What could not be told for want of room is told with a later block.
    if (! toldAny || settings != told)
        if (x.putSettings (x.heard.load (std::memory_order_relaxed), settings))
        {
            told = settings;
            toldAny = true;
        }

    float* part[8];
    const float* songPart[8];
    for (int done = 0; done < count; done += most)
    {
        const auto now = std::min (most, count - done);
        for (int c = 0; c < x.channels; ++c)
            part[c] = stem[c] + done;
        for (int c = 0; c < x.mixChannels; ++c)
            songPart[c] = song != nullptr ? song[c] + done : nullptr;
        takeIn (part, song != nullptr ? songPart : nullptr, now);

        const auto first = x.played() - now;
        const auto start = x.start.load (std::memory_order_relaxed);
        const auto needed = first + now + x.latency.reserve;
        x.due.store (first, std::memory_order_release);
        const auto wanted = first + now > start && ! (controls.bypass && amount.value == 0.0f);
        const auto waits = wanted && x.offline.load (std::memory_order_relaxed);
        if (waits)
            wait (needed);

        // The order of these two loads pairs with the worker's stores (Stream::begin).
        const auto upTo = x.wetUpTo.load (std::memory_order_acquire);
        const auto from = x.wetFrom.load (std::memory_order_acquire);
        const auto ready = upTo >= needed && (from <= first || from <= start);
        if (ready)
            held = upTo;
        const auto silent = waits && ! ready && silenceOnFailure;
        if (first + now > start)
        {
            if (fresh)
            {
                share.value = ready ? 1.0f : 0.0f;
                audible.value = silent ? 0.0f : 1.0f;
            }
            fresh = false;
            everReady = everReady || ready;
            if (! ready && everReady && ! controls.bypass)
                x.late.fetch_add (1, std::memory_order_relaxed);
        }
        giveOut (part, now, controls, ready, silent);
    }
}

void Playback::takeIn (float* const* stem, const float* const* song, int count)
{
    const auto begin = x.heard.load (std::memory_order_relaxed);
    auto stemSounds = false, songSounds = false;
    for (int c = 0; c < x.channels; ++c)
        for (int i = 0; i < count; ++i)
        {
            const auto value = stem[c][i];
            stemSounds = stemSounds || value != 0.0f;
            x.sound.at (c, begin + i) = value;
        }
    for (int c = 0; c < x.mixChannels; ++c)
        for (int i = 0; i < count; ++i)
        {
            const auto value = song != nullptr ? song[c][i] : 0.0f;
            songSounds = songSounds || value != 0.0f;
            x.sound.at (x.channels + c, begin + i) = value;
        }
    // The song's mark first: who sees the stem has to see it as well.
    if (songSounds)
        x.songUpTo.store (begin + count, std::memory_order_release);
    if (songSounds || stemSounds)
        x.stemAlone.store (songSounds ? 0 : x.stemAlone.load (std::memory_order_relaxed) + count, std::memory_order_relaxed);
    if (stemSounds)
        x.stemUpTo.store (begin + count, std::memory_order_release);
    x.heard.store (begin + count, std::memory_order_release);
}

void Playback::giveOut (float* const* stem, int count, const Controls& controls, bool ready, bool silent)
{
    const auto first = x.played() - count;
    const auto start = x.start.load (std::memory_order_relaxed);
    const auto shareTarget = ready ? 1.0f : 0.0f;
    const auto amountTarget = controls.bypass ? 0.0f : controls.wet;
    const auto gainTarget = controls.bypass ? 1.0f : controls.gain;
    if (first < start) // nothing is heard yet: nothing has to be smooth
    {
        amount.value = amountTarget;
        gain.value = gainTarget;
    }

    for (int i = 0; i < count; ++i)
    {
        const auto position = first + i;
        const auto mix = share.towards (shareTarget) * amount.towards (amountTarget);
        const auto volume = gain.towards (gainTarget) * audible.towards (silent ? 0.0f : 1.0f);
        for (int c = 0; c < x.channels; ++c)
        {
            const auto dry = position < start ? 0.0f : x.sound.at (c, position);
            dryCopy[(size_t) c][(size_t) i] = dry;
            auto out = dry;
            if (mix > 0.0f && position >= start && position < held)
            {
                const auto wet = x.wet.at (c, position);
                out = mix == 1.0f ? wet : dry + mix * (wet - dry);
            }
            stem[c][i] = volume == 1.0f ? out : volume * out;
        }
    }
    if (watch)
        watch (dryPointers.data(), stem, x.channels, count);
}

float Playback::delayedSong (int channel, int index, int count) const
{
    const auto position = x.played() - count + index;
    return position < x.start.load (std::memory_order_relaxed) ? 0.0f : x.sound.at (x.channels + channel, position);
}

} // namespace stemprover
