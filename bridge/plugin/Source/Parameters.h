#pragma once

#include "Generated.h"
#include "Playback.h"

#include <juce_audio_processors/juce_audio_processors.h>

namespace stemprover
{

/** The slots of the preset parameter. Hosts automate a preset by its slot, so a name keeps the slot it was first given. The
    shipped presets come first; the user's own follow in the order in which the bridge lists them. The names are saved with
    the session. */
class Presets
{
public:
    static constexpr int slots = 48;
    static inline const juce::String blend { "blend" };
    static constexpr int blendSlot = 2, shipped = 8; // general, auto, blend and the five adapters
    static inline const std::array<juce::String, 5> adapters { "musical-noise", "bleed", "phasiness", "dull-highs",
                                                              "smeared-transients" };
    static inline const std::array<const char*, 3> qualities { "draft", "standard", "best" };

    Presets();
    juce::String nameAt (int slot) const;
    /** The slot of a name; assigns a new one if the name has none yet. -1 if none is left. */
    int slotOf (const juce::String& name);
    /** The slot of a name, or -1. */
    int find (const juce::String& name) const;
    /** Names in the order of their slots. */
    juce::StringArray names() const;

private:
    mutable juce::CriticalSection lock;
    juce::StringArray bySlot;
};

/** The preset, as a parameter with one value for each slot. */
class PresetParameter : public juce::AudioParameterInt
{
public:
    PresetParameter (const juce::ParameterID&, Presets&);
    juce::StringArray getAllValueStrings() const override;
};

/** All parameters, and how a session stores them. */
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

    /** What a stem may be, as the bridge calls it; the first is for one that is none of the others. */
    static juce::StringArray roleNames();

    static inline const juce::String preset { "preset" }, wet { "wet" }, bypass { "bypass" }, quality { "quality" },
        gain { "output" }, offlineFailure { "offline_failure" }, startBridge { "start_bridge" }, role { "role" };

    Presets presets;
    juce::AudioProcessorValueTreeState state;

private:
    juce::AudioProcessorValueTreeState::ParameterLayout layout();

    std::array<std::atomic<float>*, 5> blend {};
    std::atomic<float>*presetValue, *wetValue, *bypassValue, *qualityValue, *gainValue, *failureValue, *startValue,
        *roleValue;
};

} // namespace stemprover
