#pragma once

#include "Latency.h"
#include "Track.h"

#include <array>
#include <atomic>
#include <functional>
#include <limits>

namespace stemprover
{

/** What the bridge has to be told, taken at one position of the sound. */
struct Settings
{
    int preset = 0;
    std::array<float, 5> blend {};
    int quality = 1;

    bool operator== (const Settings& other) const
    {
        return preset == other.preset && blend == other.blend && quality == other.quality;
    }
    bool operator!= (const Settings& other) const { return ! (*this == other); }
};

/** What changes from sample to sample, done in the plug-in itself. */
struct Controls
{
    float wet = 1.0f;
    bool bypass = false;
    float gain = 1.0f;
};

/** What audio thread and worker share. The audio thread writes `sound` (stem, then song) and `heard`; the worker writes
    `wet`, first its samples, then `wetUpTo`. Positions count samples from the plug-in's birth and never go back. */
struct Exchange
{
    static constexpr int64_t nowhere = std::numeric_limits<int64_t>::min() / 2;

    Latency latency;
    double sampleRate = 0.0;
    int channels = 0, mixChannels = 0;
    Track sound, wet;

    std::atomic<int64_t> heard { 0 };         // up to here `sound` holds
    std::atomic<int64_t> start { 0 };         // before it there was nothing: the host began, or began anew
    std::atomic<int64_t> due { 0 };           // the first sample that has not been played yet
    std::atomic<int64_t> wetFrom { nowhere }; // `wet` holds from here ...
    std::atomic<int64_t> wetUpTo { nowhere }; // ... to here
    std::atomic<int64_t> songUpTo { nowhere };// the last position at which the song was not silent
    std::atomic<int64_t> stemUpTo { nowhere };
    std::atomic<int64_t> stemAlone { 0 };     // samples of stem since the song was heard last
    std::atomic<bool> offline { false };
    std::atomic<bool> givenUp { false };      // offline: the bridge did not answer in time
    std::atomic<int> late { 0 };              // blocks of the host that went out unrepaired after others were repaired

    /** Up to where sound is played when everything up to `heard` has come in. */
    int64_t played() const { return heard.load (std::memory_order_acquire) - latency.total(); }

    /** A small queue of settings with the positions from which they hold; one thread puts, one takes. */
    bool putSettings (int64_t position, const Settings& settings);
    bool nextSettings (int64_t& position, Settings& settings) const;
    void takeSettings() { taken.fetch_add (1, std::memory_order_release); }

private:
    static constexpr uint32_t places = 64;
    std::array<std::pair<int64_t, Settings>, places> queue;
    std::atomic<uint32_t> put { 0 }, taken { 0 };
};

/** The audio thread's half: takes the host's blocks in, and gives them back `latency` later, wet where that is there in
    time. Allocates nothing, locks nothing and waits for nothing, but offline, where it waits for the repair. */
class Playback
{
public:
    explicit Playback (Exchange& exchange) : x (exchange) {}

    /** Not while `process` runs. What came before counts no more. */
    void prepare (double sampleRate, int channels, int mixChannels, int maxBlock);
    /** The same sound from its beginning, or another one; safe on the audio thread. */
    void restart();

    /** `stem` (channels, count) is replaced; `song` may be null. wait(position): offline, returns once the wet sound up
        to there has come, or false where it never will. */
    void process (float* const* stem, const float* const* song, int count, const Settings&, const Controls&,
                  const std::function<bool (int64_t)>& wait, bool silenceOnFailure);

    /** The song as late as everything else: (count) samples of one of its channels, as of the last `process`. */
    float delayedSong (int channel, int index, int count) const;

    /** For the display; written after each block. */
    std::function<void (const float* const* dry, const float* const* wet, int channels, int count)> watch;

    static constexpr int most = 2048; // samples that are handled at once

private:
    struct Ramp
    {
        float value = 1.0f, step = 1.0f;
        float towards (float target)
        {
            if (value < target)
                value = std::min (target, value + step);
            else if (value > target)
                value = std::max (target, value - step);
            return value;
        }
    };

    void takeIn (float* const* stem, const float* const* song, int count);
    void giveOut (float* const* stem, int count, const Controls&, bool ready, bool silent);

    Exchange& x;
    Ramp share, amount, gain, audible;
    bool fresh = true; // nothing has been heard yet that would have to be faded
    bool everReady = false;
    int64_t held = Exchange::nowhere; // wet sound up to here is there, whatever the worker does next
    Settings told;
    bool toldAny = false;
    std::vector<std::vector<float>> dryCopy;
    std::vector<const float*> dryPointers;
};

} // namespace stemprover
