#include "Stream.h"
#include "Parameters.h"

namespace stemprover
{

namespace
{
constexpr int64_t maxBlock = BridgeClient::maxBlock, maxUnanswered = 32768; // samples
constexpr double settingsInterval = 0.1;                                    // seconds between two changes, live

double now() { return juce::Time::getMillisecondCounterHiRes() * 1e-3; }
} // namespace

Stream::Stream (SharedState& shared, BridgeClient& bridge, std::function<juce::String (int)> nameOfSlot)
    : x (shared), client (bridge), nameOf (std::move (nameOfSlot))
{
}

void Stream::request()
{
    capacity = x.input.capacity();
    requestedAt = x.received.load();
    client.hello ({ (int) std::llround (x.sampleRate), x.channels, wantsMix() ? x.mixChannels : 0 });
}

bool Stream::isOutdated() const
{
    const auto& format = client.format();
    return format.rate != (int) std::llround (x.sampleRate) || format.channels != x.channels || capacity != x.input.capacity()
           || (format.mixChannels != 0 && format.mixChannels != x.mixChannels);
}

bool Stream::wantsMix() const
{
    return x.mixChannels > 0 && (double) x.samplesSinceMix.load() <= x.sampleRate && x.mixEnd.load() > x.start.load();
}

bool Stream::needsOtherInputs() const
{
    if (client.format().mixChannels == 0)
        return x.mixChannels > 0 && x.mixEnd.load() > requestedAt;
    return (double) x.samplesSinceMix.load() > x.sampleRate; // nothing is connected to the side-chain
}

void Stream::begin (bool again)
{
    const auto start = x.start.load (std::memory_order_acquire);
    const auto received = x.received.load (std::memory_order_acquire);
    const auto wetEnd = x.wetEnd.load();
    auto first = received;
    auto continues = false; // an earlier stream's audio, without a gap
    if (x.offline.load() && ! x.gaveUp.load())
    {
        const auto due = std::max (start, x.playPosition.load (std::memory_order_acquire));
        continues = ! again && runStart == start && wetEnd >= due && wetEnd != SharedState::nowhere;
        first = continues ? wetEnd : due;
    }
    else if (received - start <= x.latency.blocks / 2 + minimumInput)
        first = start;
    // Whole blocks from the host's start, however late the bridge came: the model's frames are then where they would be in
    // a file that begins at that start.
    const auto wholeBlocks = [start] (int64_t position) { return start + std::max<int64_t> (0, position - start) / maxBlock * maxBlock; };
    if (! continues) // one block earlier, so that the model knows whether the first sample follows silence
        first = wholeBlocks (std::max (start, first - maxBlock));
    firstWet = sent = first;
    crossfades = continues;
    if (continues) // lead-in: send again what precedes the break, as far as the buffer holds it
        sent = wholeBlocks (first - std::max<int64_t> (0, x.input.capacity() - (received - first) - 3 * maxBlock));
    else
    {
        // Playback reads these in reverse order.
        x.wetEnd.store (SharedState::nowhere, std::memory_order_release);
        x.wetBegin.store (first, std::memory_order_release);
        x.wetEnd.store (first, std::memory_order_release);
    }
    runStart = start;
    lateMix.restart();
    answered = sent;
    discontinuity = true;
    x.gaveUp.store (false);
}

void Stream::restart()
{
    client.reset();
    begin (true);
}

bool Stream::followHost()
{
    if (x.received.load (std::memory_order_acquire) - x.start.load (std::memory_order_acquire) < minimumInput)
        return false;
    restart();
    return true;
}

bool Stream::send()
{
    const auto offline = x.offline.load();
    const auto received = x.received.load (std::memory_order_acquire);
    if (received - sent > x.input.capacity() - maxBlock || (! offline && received - sent > x.latency.total()))
    {
        restart(); // too far behind: the repair would come too late
        return true;
    }
    sendSettings();
    if ((offline && client.unansweredSettings() > 0) || sent - answered > maxUnanswered)
        return false;
    const auto count = nextCount (received);
    if (count < 1)
        return false;
    checkMix (received, count);
    client.block (sent, (int) count, offline, discontinuity, [this] (int channel, int64_t i) { return x.input.at (channel, sent + i); });
    discontinuity = false;
    sent += count;
    return true;
}

void Stream::checkMix (int64_t received, int64_t count)
{
    const auto earliest = sent - x.latency.total();
    if (client.format().mixChannels > 0 && earliest >= runStart && received - earliest < x.input.capacity() - maxBlock)
        lateMix.add (x, sent, count);
}

int64_t Stream::nextCount (int64_t received) const
{
    int64_t change;
    Settings next;
    if (x.peekSettings (change, next) && change > sent && change < sent + maxBlock)
        return std::min (received, change) - sent; // end the block where settings change
    // The bridge waits up to half a block's duration for the model, so long blocks are seldom late. Waiting for a whole
    // chunk still leaves room for the host's blocks.
    const auto count = std::min<int64_t> (received - sent, maxBlock);
    return count - count % std::min<int64_t> (maxBlock, x.latency.chunk());
}

Stream::Result Stream::accept (const BridgeClient::Block& block)
{
    if (block.channels != x.wet.channels())
        return Result::nothingNew;
    answered = std::max (answered, block.position + block.count);
    const auto first = block.position - client.latency();
    const auto end = first + block.count;
    const auto wetEnd = x.wetEnd.load (std::memory_order_relaxed);
    if (std::max (first, firstWet) > wetEnd)
        return Result::gap;
    // Crossfade from the earlier stream's audio within its last `reserve` samples, which have not been played yet.
    const auto reserve = (int64_t) x.latency.reserve;
    if (crossfades)
        for (auto at = std::max (first, firstWet - reserve); at < std::min (end, firstWet); ++at)
            for (int c = 0; c < block.channels; ++c)
            {
                auto& old = x.wet.at (c, at);
                old += (float) (at - firstWet + reserve + 1) / (float) (reserve + 1) * (block.sample (c, at - first) - old);
            }
    if (end <= wetEnd)
        return Result::nothingNew;
    for (auto at = wetEnd; at < end; ++at)
        for (int c = 0; c < block.channels; ++c)
            x.wet.at (c, at) = block.sample (c, at - first);
    x.wetEnd.store (end, std::memory_order_release);
    return Result::moreWet;
}

void Stream::sendSettings()
{
    // The last change up to the position that is sent next.
    int64_t position;
    Settings next;
    while (x.peekSettings (position, next) && position <= sent)
    {
        wantedSettings = next;
        x.popSettings();
    }
    if (! wantedSettings || wantedSettings == sentSettings)
        return;
    if (! x.offline.load() && sentSettings && (now() - settingsSentAt < settingsInterval || client.unansweredSettings() > 0))
        return; // with a later block: each change makes the bridge load a model
    // The quality before the preset, so that the bridge loads the preset at that quality.
    if (wantedSettings->quality != sentSettings.value_or (Settings()).quality)
        client.quality (Presets::qualities[(size_t) wantedSettings->quality]);
    if (wantedSettings->role != sentSettings.value_or (Settings()).role)
        client.role (protocol::roles[(size_t) wantedSettings->role]);
    sendPreset (*wantedSettings);
    sentSettings = wantedSettings;
    settingsSentAt = now();
}

void Stream::sendPreset (const Settings& settings)
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
