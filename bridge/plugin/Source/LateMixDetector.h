#pragma once

#include "SharedState.h"

namespace stemprover
{

/** Detects a side-chain that arrives a latency too late. Some hosts align a side-chain with the plug-in's output instead of
    its input; the model then gets another moment of the mix than of the stem. Not detected if the host adds the latencies
    of other plug-ins as well. */
class LateMixDetector
{
public:
    void restart();
    /** Adds `count` samples of stem and mix from a position on. The stem one latency earlier must still be in the buffer. */
    void add (const SharedState&, int64_t from, int64_t count);
    /** In each of the last two stretches of four seconds, the mix correlated with the stem one latency earlier and not with
        the current one. */
    bool isLate() const { return lateStretches >= 2; }

private:
    int64_t added = 0;                                          // samples
    double mixEnergy = 0.0, stemEnergy = 0.0, earlierEnergy = 0.0;
    double stemProduct = 0.0, earlierProduct = 0.0;             // with the mix
    int lateStretches = 0;
};

} // namespace stemprover
