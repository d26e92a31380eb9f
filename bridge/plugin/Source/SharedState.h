#pragma once

#include "Latency.h"
#include "RingBuffer.h"

#include <array>
#include <atomic>
#include <limits>
#include <utility>

namespace stemprover
{

/** Settings that are sent to the bridge. Each change holds from one position of the audio. */
struct Settings
{
    int preset = 0; // slot
    std::array<float, 5> blend {};
    int quality = 1;
    int role = 0;

    bool operator== (const Settings& other) const
    {
        return preset == other.preset && blend == other.blend && quality == other.quality && role == other.role;
    }
    bool operator!= (const Settings& other) const { return ! (*this == other); }
};

/** What the audio thread and the worker share. The audio thread writes `input` and `received`; the worker writes the
    samples of `wet` first and `wetEnd` after them. Positions count samples since the plug-in was created and never go
    back. */
struct SharedState
{
    static constexpr int64_t nowhere = std::numeric_limits<int64_t>::min() / 2;

    Latency latency;
    double sampleRate = 0.0;
    int channels = 0, mixChannels = 0;
    RingBuffer input; // the stem's channels, then the mix's
    RingBuffer wet;   // repaired

    std::atomic<int64_t> received { 0 };       // end of `input`
    std::atomic<int64_t> start { 0 };          // where the host started or restarted; silence before it
    std::atomic<int64_t> playPosition { 0 };   // first sample that has not been played yet
    std::atomic<int64_t> wetBegin { nowhere }; // `wet` is valid from here ...
    std::atomic<int64_t> wetEnd { nowhere };   // ... to here
    std::atomic<int64_t> mixEnd { nowhere };   // end of the last part in which the mix was not silent
    std::atomic<int64_t> stemEnd { nowhere };  // the same for the stem
    std::atomic<int64_t> samplesSinceMix { 0 };// samples of stem since the mix was last not silent
    std::atomic<bool> offline { false };
    std::atomic<bool> gaveUp { false };        // offline: the bridge did not answer in time
    std::atomic<int> late { 0 };               // host blocks played unrepaired after others were repaired

    /** End of the audio that has been played once everything up to `received` is processed. */
    int64_t playedEnd() const { return received.load (std::memory_order_acquire) - latency.total(); }

    /** A short queue of settings and the positions from which they hold, for one writing and one reading thread.
        False if the queue is full (push) or empty (peek). */
    bool pushSettings (int64_t position, const Settings& settings);
    bool peekSettings (int64_t& position, Settings& settings) const;
    void popSettings() { popped.fetch_add (1, std::memory_order_release); }

private:
    static constexpr uint32_t queueSize = 64;
    std::array<std::pair<int64_t, Settings>, queueSize> queue;
    std::atomic<uint32_t> pushed { 0 }, popped { 0 };
};

} // namespace stemprover
