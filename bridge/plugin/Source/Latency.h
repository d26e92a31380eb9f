#pragma once

#include "Generated.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace stemprover
{

/** The latency that the plug-in reports to its host, in samples. It depends on the sample rate alone, so it is the same
    with or without a bridge, live or offline. */
struct Latency
{
    int bridge = 0;  // the bridge's upper limit at this rate
    int blocks = 0;  // for the host's blocks, and the way to the bridge and back
    int reserve = 0; // wet samples needed beyond those being played, so that they can be faded out: 5 ms

    static Latency of (double sampleRate)
    {
        const auto rate = (int64_t) std::llround (sampleRate);
        const auto times = std::max<int64_t> (1, (rate + 47999) / 48000);
        return { (int) ((rate * bridgeLimitMs (rate) + 999) / 1000), (int) (4096 * times),
                 (int) std::max<int64_t> (1, (rate + 100) / 200) };
    }

    int total() const { return bridge + blocks; }

    /** Live, the smallest number of samples sent to the bridge at once. */
    int chunk() const { return blocks / 4; }

    /** Live, the longest host block for which the repair is back before it has to be played. */
    int longestBlock() const { return blocks - reserve - (chunk() - 1); }

private:
    static int bridgeLimitMs (int64_t rate)
    {
        if (rate == latencylimits::modelRate)
            return latencylimits::atModelRateMs;
        for (const auto& range : latencylimits::otherRates)
            if (rate <= range.highestRate)
                return range.limitMs;
        return 0; // not reached: the last range has no end
    }
};

} // namespace stemprover
