#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace stemprover
{

/** What the plug-in promises its host, in samples. It hangs on the sample rate alone, so that it is the same with the
    bridge there or gone, live or offline.

    The bridge's part is the bound that docs/osc.md gives for a rate; the rest is what blocks of the host and the way to
    the bridge and back may take. */
struct Latency
{
    int bridge = 0;
    int blocks = 0;
    int reserve = 0; // of wet sound that has to be there beyond what is played, so that it can be faded out

    static Latency of (double sampleRate)
    {
        const auto rate = (int64_t) std::llround (sampleRate);
        const auto share = rate == 44100 ? 320 : rate < 32000 ? 590 : rate <= 176400 ? 370 : 390; // thousandths of a second
        const auto times = std::max<int64_t> (1, (rate + 47999) / 48000);
        return { (int) ((rate * share + 999) / 1000), (int) (4096 * times), (int) std::max<int64_t> (1, (rate + 100) / 200) };
    }

    int total() const { return bridge + blocks; }

    /** What is sent to the bridge at once, live, at least. */
    int chunk() const { return blocks / 4; }

    /** Of the host's blocks, live: what is played with one has come back before it. */
    int longestBlock() const { return blocks - reserve - (chunk() - 1); }
};

} // namespace stemprover
