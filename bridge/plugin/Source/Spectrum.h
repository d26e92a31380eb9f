#pragma once

#include <juce_dsp/juce_dsp.h>

#include <array>
#include <atomic>

namespace stemprover
{

/** The recent spectrum of a signal, for display. Written on the audio thread without a lock and read when it is drawn; a
    sample that is overwritten meanwhile does no harm. */
class Spectrum
{
public:
    static constexpr int order = 12, size = 1 << order, columns = 160;

    void prepare (double sampleRate) { rate.store (sampleRate); }
    void add (const float* const* samples, int channels, int count);
    /** Levels in dB in `columns` bands, spaced logarithmically from 30 Hz to 20 kHz and smoothed from call to call.
        The first call starts the analysis. */
    const std::array<float, columns>& levels();
    /** Call when the display closes. */
    void stop() { wanted.store (false, std::memory_order_relaxed); }

private:
    bool hasLevels = false;
    std::atomic<double> rate { 48000.0 };
    std::array<std::atomic<float>, size> ring {};
    std::atomic<juce::uint32> at { 0 };
    std::atomic<bool> wanted { false };
    juce::dsp::FFT fft { order };
    juce::dsp::WindowingFunction<float> window { (size_t) size, juce::dsp::WindowingFunction<float>::hann };
    std::array<float, 2 * size> work {};
    std::array<float, columns> shown {};
};

} // namespace stemprover
