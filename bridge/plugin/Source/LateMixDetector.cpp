#include "LateMixDetector.h"

namespace stemprover
{

namespace
{
constexpr double stretchSeconds = 4.0;
constexpr double minimumCorrelation = 0.2, minimumRatio = 3.0; // of the late correlation, and to the one in time
} // namespace

void LateMixDetector::restart()
{
    *this = {};
}

void LateMixDetector::add (const SharedState& x, int64_t from, int64_t count)
{
    const auto sum = [&x] (int first, int end, int64_t at) {
        auto all = 0.0;
        for (int c = first; c < end; ++c)
            all += (double) x.input.at (c, at);
        return all;
    };
    const auto total = x.channels + x.mixChannels, latency = x.latency.total();
    for (auto at = from; at < from + count; ++at)
    {
        const auto stem = sum (0, x.channels, at), earlier = sum (0, x.channels, at - latency), mix = sum (x.channels, total, at);
        mixEnergy += mix * mix;
        stemEnergy += stem * stem;
        earlierEnergy += earlier * earlier;
        stemProduct += stem * mix;
        earlierProduct += earlier * mix;
    }
    added += count;
    if ((double) added < stretchSeconds * x.sampleRate)
        return;
    const auto correlation = [this] (double product, double energy) {
        return energy > 0.0 && mixEnergy > 0.0 ? std::abs (product) / std::sqrt (energy * mixEnergy) : 0.0;
    };
    const auto inTime = correlation (stemProduct, stemEnergy), late = correlation (earlierProduct, earlierEnergy);
    const auto stretches = late > minimumCorrelation && late > minimumRatio * inTime ? lateStretches + 1 : 0;
    restart();
    lateStretches = stretches;
}

} // namespace stemprover
