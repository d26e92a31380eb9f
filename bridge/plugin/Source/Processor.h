#pragma once

#include "BridgeWorker.h"
#include "Parameters.h"
#include "Spectrum.h"

namespace stemprover
{

/** The plug-in. Either mono or stereo with the mix on the side-chain; or, for hosts without side-chains, four channels of
    which the last two are the mix. Those come out unchanged, with the plug-in's latency. */
class Processor : public juce::AudioProcessor
{
public:
    Processor();

    void prepareToPlay (double sampleRate, int maxBlock) override;
    void releaseResources() override {}
    void reset() override;
    bool isBusesLayoutSupported (const BusesLayout&) const override;
    using juce::AudioProcessor::processBlock;
    using juce::AudioProcessor::processBlockBypassed;
    void processBlock (juce::AudioBuffer<float>&, juce::MidiBuffer&) override;
    void processBlockBypassed (juce::AudioBuffer<float>&, juce::MidiBuffer&) override;
    juce::AudioProcessorParameter* getBypassParameter() const override { return parameters.bypassParameter(); }

    juce::AudioProcessorEditor* createEditor() override;
    bool hasEditor() const override { return true; }
    const juce::String getName() const override { return JucePlugin_Name; }
    bool acceptsMidi() const override { return false; }
    bool producesMidi() const override { return false; }
    double getTailLengthSeconds() const override { return 0.0; }
    int getNumPrograms() override { return 1; }
    int getCurrentProgram() override { return 0; }
    void setCurrentProgram (int) override {}
    const juce::String getProgramName (int) override { return "Default"; }
    void changeProgramName (int, const juce::String&) override {}
    void getStateInformation (juce::MemoryBlock& into) override { parameters.save (into); }
    void setStateInformation (const void* data, int size) override
    {
        parameters.load (data, size);
        ++presetsChanged;
    }

    /** For the editor. */
    BridgeWorker::Report report() const { return worker.report(); }
    int lateBlocks() const { return shared.late.load(); }
    /** Why the host's settings prevent a live repair; empty if they do not. */
    juce::String hostProblem() const;

    Parameters parameters { *this };
    Spectrum before, after;
    std::atomic<int> presetsChanged { 0 };

private:
    void run (juce::AudioBuffer<float>&, bool bypassed);

    const bool alwaysLive;
    SharedState shared;
    Playback playback { shared };
    std::function<bool (int64_t)> wait;
    std::atomic<int> maxHostBlock { 0 };
    BridgeWorker worker; // last: its thread uses the members above
};

} // namespace stemprover
