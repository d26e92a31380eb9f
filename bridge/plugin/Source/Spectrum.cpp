#include "Spectrum.h"

namespace stemprover
{

void Spectrum::add (const float* const* samples, int channels, int count)
{
    if (! wanted.load (std::memory_order_relaxed)) // no display is open
        return;
    auto place = at.load (std::memory_order_relaxed);
    for (int i = 0; i < count; ++i, ++place)
    {
        auto sum = 0.0f;
        for (int c = 0; c < channels; ++c)
            sum += samples[c][i];
        ring[place % size].store (sum / (float) channels, std::memory_order_relaxed);
    }
    at.store (place, std::memory_order_release);
}

const std::array<float, Spectrum::columns>& Spectrum::levels()
{
    wanted.store (true, std::memory_order_relaxed);
    const auto last = at.load (std::memory_order_acquire);
    for (juce::uint32 i = 0; i < size; ++i)
        work[i] = ring[(last + i) % size].load (std::memory_order_relaxed);
    std::fill (work.begin() + size, work.end(), 0.0f);
    window.multiplyWithWindowingTable (work.data(), size);
    fft.performFrequencyOnlyForwardTransform (work.data(), true);

    const auto binHz = (float) (rate.load() / size);
    for (int column = 0; column < columns; ++column)
    {
        const auto edge = [&] (int which) { return 30.0f * std::pow (20000.0f / 30.0f, (float) which / (float) columns) / binHz; };
        const auto low = juce::jlimit (1, size / 2 - 1, (int) edge (column));
        const auto high = juce::jlimit (low + 1, size / 2, (int) std::ceil (edge (column + 1)));
        auto peak = 0.0f;
        for (int bin = low; bin < high; ++bin)
            peak = juce::jmax (peak, work[(size_t) bin]);
        const auto level = juce::Decibels::gainToDecibels (peak * 4.0f / (float) size, -100.0f);
        auto& smooth = shown[(size_t) column];
        smooth = hasLevels ? juce::jmax (level, smooth + 0.25f * (level - smooth)) : level;
    }
    hasLevels = true;
    return shown;
}

} // namespace stemprover
