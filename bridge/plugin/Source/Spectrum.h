#pragma once

#include <juce_dsp/juce_dsp.h>

#include <array>
#include <atomic>

namespace stemprover
{

/** The last seconds of a sound's spectrum, for the eye: filled on the audio thread without a lock, read when it is drawn
    (a sample that is being overwritten meanwhile does no harm). */
class Spectrum
{
public:
    static constexpr int order = 12, size = 1 << order, columns = 160;

    void prepare (double sampleRate) { rate.store (sampleRate); }
    void put (const float* const* sound, int channels, int count);
    /** Levels in dB in `columns` bands that are equally wide to the ear, 30 Hz to 20 kHz; smoothed over calls. */
    const std::array<float, columns>& levels();
    /** Nobody looks any more. */
    void rest() { wanted.store (false, std::memory_order_relaxed); }
    bool seen = false;

private:
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
