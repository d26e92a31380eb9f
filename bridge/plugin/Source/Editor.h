#pragma once

#include "Processor.h"

namespace stemprover
{

/** Draws the spectrum before and after the repair. */
class SpectrumView : public juce::Component
{
public:
    explicit SpectrumView (Processor&);
    void paint (juce::Graphics&) override;

private:
    Processor& processor;
};

/** The plug-in's window: preset and amounts, the bridge's status, and the spectrum before and after. */
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
    void setUp (Knob&, const juce::String& parameter, const juce::String& text, const juce::String& tooltip);
    void fillPresets();
    void showStatus();

    Processor& processor;
    juce::Label title, presetLabel, roleLabel, qualityLabel, failureLabel;
    juce::Label status, numbers;
    juce::ComboBox preset, role, quality, failure;
    juce::ToggleButton bypass { "Bypass" }, startsBridge { "Start the bridge" };
    std::array<Knob, 5> blend;
    Knob wet, output;
    SpectrumView spectrum;
    std::unique_ptr<juce::ParameterAttachment> presetAttachment;
    std::unique_ptr<State::ComboBoxAttachment> roleAttachment, qualityAttachment, failureAttachment;
    std::unique_ptr<State::ButtonAttachment> bypassAttachment, startsBridgeAttachment;
    juce::TooltipWindow tooltips { this };
    int listedPresets = -1; // Processor::presetsChanged when the list was filled
};

} // namespace stemprover
