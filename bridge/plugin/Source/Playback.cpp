#include "Playback.h"

#include <algorithm>

namespace stemprover
{

void Playback::prepare (double sampleRate, int channels, int mixChannels, int maxBlock)
{
    const auto latency = Latency::of (sampleRate);
    const auto room = 2 * ((int64_t) latency.total() + std::max (maxBlock, maxPart));
    if (sampleRate != x.sampleRate || channels != x.channels || mixChannels != x.mixChannels || room > x.input.capacity())
    {
        x.sampleRate = sampleRate;
        x.channels = channels;
        x.mixChannels = mixChannels;
        x.latency = latency;
        x.input.prepare (channels + mixChannels, room);
        x.wet.prepare (channels, room);
        dryCopy.assign ((size_t) channels, std::vector<float> (maxPart));
        dryPointers.clear();
        for (auto& channel : dryCopy)
            dryPointers.push_back (channel.data());
    }
    readiness.step = audible.step = 1.0f / (float) x.latency.reserve;
    wetAmount.step = gain.step = (float) (1.0 / (0.02 * sampleRate));
    restart();
}

void Playback::restart()
{
    // `wet` need not be cleared: what it holds ends before the first position that is played from now on.
    const auto here = x.received.load (std::memory_order_relaxed);
    x.playPosition.store (here, std::memory_order_release);
    x.start.store (here, std::memory_order_release);
    x.samplesSinceMix.store (0, std::memory_order_relaxed);
    x.gaveUp.store (false, std::memory_order_relaxed);
    readyEnd = SharedState::nowhere;
    firstOutput = true;
    wasReady = false;
    queued.reset();
}

void Playback::process (float* const* stem, const float* const* mix, int count, const Settings& settings,
                        const Controls& controls, const std::function<bool (int64_t)>& wait, bool silenceOnFailure)
{
    // If the queue is full, the next block tries again.
    if (queued != settings && x.pushSettings (x.received.load (std::memory_order_relaxed), settings))
        queued = settings;

    float* part[8];
    const float* mixPart[8];
    for (int done = 0; done < count; done += maxPart)
    {
        const auto length = std::min (maxPart, count - done);
        for (int c = 0; c < x.channels; ++c)
            part[c] = stem[c] + done;
        for (int c = 0; c < x.mixChannels; ++c)
            mixPart[c] = mix != nullptr ? mix[c] + done : nullptr;
        storeInput (part, mix != nullptr ? mixPart : nullptr, length);

        const auto first = x.playedEnd() - length;
        const auto start = x.start.load (std::memory_order_relaxed);
        const auto needed = first + length + x.latency.reserve;
        x.playPosition.store (first, std::memory_order_release);
        const auto wanted = first + length > start && ! (controls.bypass && wetAmount.value == 0.0f);
        const auto waits = wanted && x.offline.load (std::memory_order_relaxed);
        if (waits)
            wait (needed);

        // The order of these two loads pairs with the worker's stores (Stream::begin).
        const auto wetEnd = x.wetEnd.load (std::memory_order_acquire);
        const auto wetBegin = x.wetBegin.load (std::memory_order_acquire);
        const auto ready = wetEnd >= needed && (wetBegin <= first || wetBegin <= start);
        if (ready)
            readyEnd = wetEnd;
        const auto silent = waits && ! ready && silenceOnFailure;
        if (first + length > start)
        {
            if (firstOutput)
            {
                readiness.value = ready ? 1.0f : 0.0f;
                audible.value = silent ? 0.0f : 1.0f;
            }
            firstOutput = false;
            wasReady = wasReady || ready;
            if (! ready && wasReady && ! controls.bypass)
                x.late.fetch_add (1, std::memory_order_relaxed);
        }
        writeOutput (part, length, controls, ready, silent);
    }
}

void Playback::storeInput (float* const* stem, const float* const* mix, int count)
{
    const auto begin = x.received.load (std::memory_order_relaxed);
    auto stemSounds = false, mixSounds = false;
    for (int c = 0; c < x.channels; ++c)
        for (int i = 0; i < count; ++i)
        {
            const auto value = stem[c][i];
            stemSounds = stemSounds || value != 0.0f;
            x.input.at (c, begin + i) = value;
        }
    for (int c = 0; c < x.mixChannels; ++c)
        for (int i = 0; i < count; ++i)
        {
            const auto value = mix != nullptr ? mix[c][i] : 0.0f;
            mixSounds = mixSounds || value != 0.0f;
            x.input.at (x.channels + c, begin + i) = value;
        }
    // mixEnd before stemEnd: a thread that sees the stem must see the mix as well.
    if (mixSounds)
        x.mixEnd.store (begin + count, std::memory_order_release);
    if (mixSounds || stemSounds)
        x.samplesSinceMix.store (mixSounds ? 0 : x.samplesSinceMix.load (std::memory_order_relaxed) + count,
                                 std::memory_order_relaxed);
    if (stemSounds)
        x.stemEnd.store (begin + count, std::memory_order_release);
    x.received.store (begin + count, std::memory_order_release);
}

void Playback::writeOutput (float* const* stem, int count, const Controls& controls, bool ready, bool silent)
{
    const auto first = x.playedEnd() - count;
    const auto start = x.start.load (std::memory_order_relaxed);
    const auto readinessTarget = ready ? 1.0f : 0.0f;
    const auto amountTarget = controls.bypass ? 0.0f : controls.wet;
    const auto gainTarget = controls.bypass ? 1.0f : controls.gain;
    if (first < start) // before the first audible sample, controls may jump
    {
        wetAmount.value = amountTarget;
        gain.value = gainTarget;
    }

    for (int i = 0; i < count; ++i)
    {
        const auto position = first + i;
        const auto blend = readiness.towards (readinessTarget) * wetAmount.towards (amountTarget);
        const auto volume = gain.towards (gainTarget) * audible.towards (silent ? 0.0f : 1.0f);
        for (int c = 0; c < x.channels; ++c)
        {
            const auto dry = position < start ? 0.0f : x.input.at (c, position);
            dryCopy[(size_t) c][(size_t) i] = dry;
            auto out = dry;
            if (blend > 0.0f && position >= start && position < readyEnd)
            {
                const auto wet = x.wet.at (c, position);
                out = blend == 1.0f ? wet : dry + blend * (wet - dry);
            }
            stem[c][i] = volume == 1.0f ? out : volume * out;
        }
    }
    if (watch)
        watch (dryPointers.data(), stem, x.channels, count);
}

float Playback::delayedMix (int channel, int index, int count) const
{
    const auto position = x.playedEnd() - count + index;
    return position < x.start.load (std::memory_order_relaxed) ? 0.0f : x.input.at (x.channels + channel, position);
}

} // namespace stemprover
