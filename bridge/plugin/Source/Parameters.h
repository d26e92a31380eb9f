#pragma once

#include "Playback.h"

#include <juce_audio_processors/juce_audio_processors.h>

namespace stemprover
{

/** The places of the preset parameter. Hosts automate a preset by its place, so a name keeps the place that it has once
    got: the shipped ones come first, a user's own follow in the order in which the bridge tells of them, and the table is
    saved with the session. */
class Presets
{
public:
    static constexpr int places = 48;
    static inline const juce::String blend { "blend" };
    static inline const std::array<juce::String, 5> adapters { "musical-noise", "bleed", "phasiness", "dull-highs",
                                                              "smeared-transients" };
    static inline const std::array<const char*, 3> qualities { "draft", "standard", "best" };

    Presets();
    juce::String nameAt (int place) const;
    /** The place of a name, a new one for a name that has none yet; -1 where there is no room. */
    int placeOf (const juce::String& name);
    int find (const juce::String& name) const;
    /** Names in the order of their places. */
    juce::StringArray names() const;

private:
    mutable juce::CriticalSection lock;
    juce::StringArray table;
};

/** The preset, as a parameter with a value for every place. */
class PresetParameter : public juce::AudioParameterInt
{
public:
    PresetParameter (const juce::ParameterID&, Presets&);
    juce::StringArray getAllValueStrings() const override;
};

/** All parameters and what a session keeps of them. */
class Parameters
{
public:
    explicit Parameters (juce::AudioProcessor&);

    Settings settings() const;
    Controls controls() const;
    bool silenceOnFailure() const { return failureValue->load() > 0.5f; }
    bool startsBridge() const { return startValue->load() > 0.5f; }
    juce::RangedAudioParameter* bypassParameter() const { return state.getParameter (bypass); }

    void save (juce::MemoryBlock&);
    void load (const void* data, int size);

    static inline const juce::String preset { "preset" }, wet { "wet" }, bypass { "bypass" }, quality { "quality" },
        gain { "output" }, offlineFailure { "offline_failure" }, startBridge { "start_bridge" };

    Presets presets;
    juce::AudioProcessorValueTreeState state;

private:
    juce::AudioProcessorValueTreeState::ParameterLayout layout();

    std::array<std::atomic<float>*, 5> blend {};
    std::atomic<float>*presetValue, *wetValue, *bypassValue, *qualityValue, *gainValue, *failureValue, *startValue;
};

} // namespace stemprover
