#include "Alignment.h"

namespace stemprover
{

namespace
{
constexpr double stretch = 4.0; // seconds
constexpr double clearly = 0.2, rather = 3.0;
} // namespace

void Alignment::restart()
{
    *this = {};
}

void Alignment::listen (const Exchange& x, int64_t from, int64_t count)
{
    const auto sum = [&x] (int first, int end, int64_t at) {
        auto all = 0.0;
        for (int c = first; c < end; ++c)
            all += (double) x.sound.at (c, at);
        return all;
    };
    const auto total = x.channels + x.mixChannels, latency = x.latency.total();
    for (auto at = from; at < from + count; ++at)
    {
        const auto now = sum (0, x.channels, at), earlier = sum (0, x.channels, at - latency), all = sum (x.channels, total, at);
        song += all * all;
        stem += now * now;
        before += earlier * earlier;
        withStem += now * all;
        withBefore += earlier * all;
    }
    heard += count;
    if ((double) heard < stretch * x.sampleRate)
        return;
    const auto correlation = [this] (double product, double energy) {
        return energy > 0.0 && song > 0.0 ? std::abs (product) / std::sqrt (energy * song) : 0.0;
    };
    const auto inTime = correlation (withStem, stem), late = correlation (withBefore, before);
    const auto agreed = late > clearly && late > rather * inTime ? agreeing + 1 : 0;
    restart();
    agreeing = agreed;
}

} // namespace stemprover
