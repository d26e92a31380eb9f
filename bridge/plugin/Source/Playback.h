#pragma once

#include "SharedState.h"

#include <functional>
#include <optional>

namespace stemprover
{

/** Settings that the plug-in applies itself, smoothed from sample to sample. */
struct Controls
{
    float wet = 1.0f;
    bool bypass = false;
    float gain = 1.0f;
};

/** The audio thread's side: stores the host's blocks and plays them `latency` later, repaired if the repair is there in
    time. Does not allocate, lock or wait, except offline, where it waits for the repair. */
class Playback
{
public:
    explicit Playback (SharedState& shared) : x (shared) {}

    /** Not while `process` runs. Drops all earlier audio. */
    void prepare (double sampleRate, int channels, int mixChannels, int maxBlock);
    /** The host plays from elsewhere, or another clip. Safe on the audio thread. */
    void restart();

    /** Replaces `stem` (channels, count); `mix` may be null. wait (position): offline, returns true once wet audio up to
        that position is there, or false if it will not come. */
    void process (float* const* stem, const float* const* mix, int count, const Settings&, const Controls&,
                  const std::function<bool (int64_t)>& wait, bool silenceOnFailure);

    /** One sample of the mix, delayed like the stem. index is within the last `count` samples processed. */
    float delayedMix (int channel, int index, int count) const;

    /** Called after each part, for the display. */
    std::function<void (const float* const* dry, const float* const* wet, int channels, int count)> watch;

    static constexpr int maxPart = 2048; // longer blocks are processed in parts of this many samples

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

    void storeInput (float* const* stem, const float* const* mix, int count);
    void writeOutput (float* const* stem, int count, const Controls&, bool ready, bool silent);

    SharedState& x;
    Ramp readiness; // 1 while wet audio is there, 0 while it is late
    Ramp wetAmount, gain;
    Ramp audible;   // 0 in a failed offline render that asks for silence
    bool firstOutput = true; // nothing has been played yet, so there is nothing to fade from
    bool wasReady = false;
    int64_t readyEnd = SharedState::nowhere; // wet audio up to here may be played, whatever the worker does next
    std::optional<Settings> queued;
    std::vector<std::vector<float>> dryCopy;
    std::vector<const float*> dryPointers;
};

} // namespace stemprover
