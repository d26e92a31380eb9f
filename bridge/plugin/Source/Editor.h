#pragma once

#include "Processor.h"

namespace stemprover
{

/** Sound as it came against repaired sound, by frequency. */
class SpectrumView : public juce::Component
{
public:
    explicit SpectrumView (Processor&);
    void paint (juce::Graphics&) override;

private:
    Processor& processor;
};

/** The window: what to repair and how much of it, how the bridge does, and a picture of before and after. */
class Editor : public juce::AudioProcessorEditor, private juce::Timer
{
public:
    explicit Editor (Processor&);
    ~Editor() override;
    void paint (juce::Graphics&) override;
    void resized() override;

private:
    using State = juce::AudioProcessorValueTreeState;

    struct Knob
    {
        juce::Label label;
        juce::Slider slider;
        std::unique_ptr<State::SliderAttachment> attachment;
    };

    void timerCallback() override;
    void setUp (Knob&, const juce::String& parameter, const juce::String& text, const juce::String& help);
    void fillPresets();
    void showState();

    Processor& processor;
    juce::Label title, presetLabel, qualityLabel, failureLabel;
    juce::Label state, numbers;
    juce::ComboBox preset, quality, failure;
    juce::ToggleButton bypass { "Bypass" }, starts { "Start the bridge" };
    std::array<Knob, 5> blend;
    Knob wet, output;
    SpectrumView spectrum;
    std::unique_ptr<juce::ParameterAttachment> presetAttachment;
    std::unique_ptr<State::ComboBoxAttachment> qualityAttachment, failureAttachment;
    std::unique_ptr<State::ButtonAttachment> bypassAttachment, startsAttachment;
    juce::TooltipWindow tooltips { this };
    int filled = -1;
};

} // namespace stemprover
