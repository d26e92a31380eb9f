#include "Processor.h"
#include "Editor.h"

#if JUCE_LINUX || JUCE_MAC || JUCE_BSD
// A library loaded before the host may define these to watch the audio thread between the two calls
// (tests/plugin/realtime_guard.c).
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

bool isStemAndMix (const juce::AudioChannelSet& set) { return set.size() == 4; }
} // namespace

Processor::Processor()
    : juce::AudioProcessor (BusesProperties()
                                .withInput ("Input", juce::AudioChannelSet::stereo(), true)
                                .withInput ("Mix", juce::AudioChannelSet::stereo(), false)
                                .withOutput ("Output", juce::AudioChannelSet::stereo(), true)),
      alwaysLive (numberFromEnvironment ("STEMPROVER_LIVE", 0.0) > 0.0),
      worker (
          shared, [this] (int slot) { return parameters.presets.nameAt (slot); },
          [this] (const juce::StringArray& names) {
              for (const auto& name : names)
                  parameters.presets.slotOf (name);
              ++presetsChanged;
          })
{
    wait = [this] (int64_t position) { return worker.waitFor (position); };
    playback.watch = [this] (const float* const* dry, const float* const* wet, int channels, int count) {
        before.add (dry, channels, count);
        after.add (wet, channels, count);
    };
    setLatencySamples (Latency::of (48000.0).total());
}

bool Processor::isBusesLayoutSupported (const BusesLayout& layouts) const
{
    // VST3 hosts made with JUCE (pedalboard) read the latency after setting the rate and the layout but before calling
    // prepareToPlay. This is the only call that reaches the plug-in in between.
    if (getSampleRate() > 0.0)
        const_cast<Processor*> (this)->setLatencySamples (Latency::of (getSampleRate()).total());

    const auto in = layouts.getMainInputChannelSet(), out = layouts.getMainOutputChannelSet();
    const auto mixChannels = layouts.getNumChannels (true, 1);
    if (in != out)
        return false;
    // With four channels the side-chain is ignored, but a host that has just switched it off may still list it.
    return (isStemAndMix (in) || in == juce::AudioChannelSet::mono() || in == juce::AudioChannelSet::stereo()) && mixChannels <= 2;
}

void Processor::prepareToPlay (double sampleRate, int maxBlock)
{
    const juce::ScopedLock hold (worker.lock());
    const auto main = getMainBusNumInputChannels();
    const auto mixChannels = main == 4 ? 2 : getChannelCountOfBus (true, 1);
    playback.prepare (sampleRate, main == 4 ? 2 : main, mixChannels, maxBlock);
    maxHostBlock = maxBlock;
    before.prepare (sampleRate);
    after.prepare (sampleRate);
    setLatencySamples (shared.latency.total());
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
    const auto offline = isNonRealtime() && ! alwaysLive; // checked for every block: some hosts set it late
    const AudioThreadMark mark (! offline);
    const juce::ScopedNoDenormals noDenormals;
    const auto count = buffer.getNumSamples();
    if (shared.channels == 0 || buffer.getNumChannels() < shared.channels)
        return;
    shared.offline.store (offline, std::memory_order_relaxed);
    worker.setStartsBridge (parameters.startsBridge());

    auto controls = parameters.controls();
    controls.bypass = controls.bypass || bypassed;
    float* stem[2] {};
    const float* mix[2] {};
    const auto four = getMainBusNumInputChannels() == 4;
    for (int c = 0; c < shared.channels; ++c)
        stem[c] = buffer.getWritePointer (c);
    const auto firstMix = four ? 2 : getChannelIndexInProcessBlockBuffer (true, 1, 0);
    auto hasMix = shared.mixChannels > 0;
    for (int c = 0; c < shared.mixChannels; ++c)
    {
        hasMix = hasMix && firstMix + c < buffer.getNumChannels();
        mix[c] = hasMix ? buffer.getReadPointer (firstMix + c) : nullptr;
    }
    playback.process (stem, hasMix ? mix : nullptr, count, parameters.settings(), controls, wait, parameters.silenceOnFailure());
    if (four && hasMix)
        for (int c = 0; c < 2; ++c)
        {
            auto* out = buffer.getWritePointer (2 + c);
            for (int i = 0; i < count; ++i)
                out[i] = playback.delayedMix (c, i, count);
        }
}

juce::String Processor::hostProblem() const
{
    const auto longest = shared.latency.longestBlock();
    if (! isNonRealtime() && shared.latency.blocks > 0 && maxHostBlock.load() > longest)
        return "blocks of " + juce::String (maxHostBlock.load()) + " samples are too long for a live repair; set the host's buffer to "
               + juce::String (longest) + " samples or less";
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
