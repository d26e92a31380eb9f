#include "Processor.h"
#include "Editor.h"
#include "Start.h"

#if JUCE_LINUX || JUCE_MAC || JUCE_BSD
// A library that is loaded before the host may define these, to see what the audio thread does in between.
extern "C" __attribute__ ((weak, visibility ("default"))) void stemprover_audio_begins();
extern "C" __attribute__ ((weak, visibility ("default"))) void stemprover_audio_ends();
#endif

namespace stemprover
{

namespace
{
struct AudioThreadMark
{
   #if JUCE_LINUX || JUCE_MAC || JUCE_BSD
    explicit AudioThreadMark (bool isLive) : live (isLive && stemprover_audio_begins != nullptr)
    {
        if (live)
            stemprover_audio_begins();
    }
    ~AudioThreadMark()
    {
        if (live)
            stemprover_audio_ends();
    }
    const bool live;
   #else
    explicit AudioThreadMark (bool) {}
   #endif
};

bool isFour (const juce::AudioChannelSet& set) { return set.size() == 4; }
} // namespace

Processor::Processor()
    : juce::AudioProcessor (BusesProperties()
                                .withInput ("Input", juce::AudioChannelSet::stereo(), true)
                                .withInput ("Mix", juce::AudioChannelSet::stereo(), false)
                                .withOutput ("Output", juce::AudioChannelSet::stereo(), true)),
      alwaysLive (numberFromEnvironment ("STEMPROVER_LIVE", 0.0) > 0.0),
      link (
          exchange, [this] (int place) { return parameters.presets.nameAt (place); },
          [this] (const juce::StringArray& names) {
              for (const auto& name : names)
                  parameters.presets.placeOf (name);
              ++presetsChanged;
          })
{
    wait = [this] (int64_t position) { return link.waitFor (position); };
    playback.watch = [this] (const float* const* dry, const float* const* wet, int channels, int count) {
        before.put (dry, channels, count);
        after.put (wet, channels, count);
    };
    setLatencySamples (Latency::of (48000.0).total());
}

bool Processor::isBusesLayoutSupported (const BusesLayout& layouts) const
{
    // VST3 hosts made with JUCE (pedalboard) read the latency when they have told the rate and the layout, before they
    // call prepareToPlay; this is the one call that reaches a plug-in in between.
    if (getSampleRate() > 0.0)
        const_cast<Processor*> (this)->setLatencySamples (Latency::of (getSampleRate()).total());

    const auto in = layouts.getMainInputChannelSet(), out = layouts.getMainOutputChannelSet();
    const auto song = layouts.getNumChannels (true, 1);
    if (in != out)
        return false;
    // With four channels the side-chain counts for nothing, but hosts that have just switched it off still name it.
    return (isFour (in) || in == juce::AudioChannelSet::mono() || in == juce::AudioChannelSet::stereo()) && song <= 2;
}

void Processor::prepareToPlay (double sampleRate, int maxBlock)
{
    const juce::ScopedLock hold (link.lock());
    const auto main = getMainBusNumInputChannels();
    const auto song = main == 4 ? 2 : getChannelCountOfBus (true, 1);
    playback.prepare (sampleRate, main == 4 ? 2 : main, song, maxBlock);
    largest = maxBlock;
    before.prepare (sampleRate);
    after.prepare (sampleRate);
    setLatencySamples (exchange.latency.total());
}

void Processor::reset()
{
    playback.restart();
}

void Processor::processBlock (juce::AudioBuffer<float>& buffer, juce::MidiBuffer&)
{
    run (buffer, false);
}

void Processor::processBlockBypassed (juce::AudioBuffer<float>& buffer, juce::MidiBuffer&)
{
    run (buffer, true);
}

void Processor::run (juce::AudioBuffer<float>& buffer, bool bypassed)
{
    const auto offline = isNonRealtime() && ! alwaysLive; // asked at every block: hosts change it late
    const AudioThreadMark mark (! offline);
    const juce::ScopedNoDenormals noDenormals;
    const auto count = buffer.getNumSamples();
    if (exchange.channels == 0 || buffer.getNumChannels() < exchange.channels)
        return;
    exchange.offline.store (offline, std::memory_order_relaxed);
    link.setStartsBridge (parameters.startsBridge());

    auto controls = parameters.controls();
    controls.bypass = controls.bypass || bypassed;
    float* stem[2] {};
    const float* song[2] {};
    const auto four = getMainBusNumInputChannels() == 4;
    for (int c = 0; c < exchange.channels; ++c)
        stem[c] = buffer.getWritePointer (c);
    const auto firstSong = four ? 2 : getChannelIndexInProcessBlockBuffer (true, 1, 0);
    auto hasSong = exchange.mixChannels > 0;
    for (int c = 0; c < exchange.mixChannels; ++c)
    {
        hasSong = hasSong && firstSong + c < buffer.getNumChannels();
        song[c] = hasSong ? buffer.getReadPointer (firstSong + c) : nullptr;
    }
    playback.process (stem, hasSong ? song : nullptr, count, parameters.settings(), controls, wait, parameters.silenceOnFailure());
    if (four && hasSong)
        for (int c = 0; c < 2; ++c)
        {
            auto* out = buffer.getWritePointer (2 + c);
            for (int i = 0; i < count; ++i)
                out[i] = playback.delayedSong (c, i, count);
        }
}

juce::String Processor::trouble() const
{
    const auto longest = exchange.latency.longestBlock();
    if (! isNonRealtime() && exchange.latency.blocks > 0 && largest.load() > longest)
        return "blocks of " + juce::String (largest.load()) + " samples are too long to be repaired live; up to "
               + juce::String (longest) + " are";
    return {};
}

juce::AudioProcessorEditor* Processor::createEditor()
{
    return new Editor (*this);
}

} // namespace stemprover

juce::AudioProcessor* JUCE_CALLTYPE createPluginFilter()
{
    return new stemprover::Processor();
}
