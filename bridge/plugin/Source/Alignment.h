#pragma once

#include "Playback.h"

namespace stemprover
{

/** Whether the song comes as late as what the plug-in gives back: there are hosts that align a side-chain with a plug-in's
    output in place of its input, and then the model hears another moment of the song than of the stem. Where the host adds
    other plug-ins' latencies to it, that goes unnoticed. */
class Alignment
{
public:
    void restart();
    /** `count` samples of stem and song from a position on; the stem of the latency before must still be there. */
    void listen (const Exchange&, int64_t from, int64_t count);
    /** In two stretches of four seconds after each other the song went with the stem of the latency before, and not with
        that of now. */
    bool songIsLate() const { return agreeing >= 2; }

private:
    int64_t heard = 0;
    double song = 0.0, stem = 0.0, before = 0.0;  // energies
    double withStem = 0.0, withBefore = 0.0;      // products with the song
    int agreeing = 0;
};

} // namespace stemprover
