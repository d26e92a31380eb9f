#include "Editor.h"

namespace stemprover
{

namespace
{
const juce::Colour dryColour { 0xff8f9aa3 }, wetColour { 0xff42a2c8 };

juce::Colour colourOf (BridgeWorker::State state)
{
    switch (state)
    {
        case BridgeWorker::State::running: return juce::Colours::limegreen;
        case BridgeWorker::State::refused: return juce::Colours::orangered;
        case BridgeWorker::State::searching:
        case BridgeWorker::State::connecting: return juce::Colours::orange;
        case BridgeWorker::State::idle: break;
    }
    return juce::Colours::grey;
}

juce::String nameOf (BridgeWorker::State state)
{
    switch (state)
    {
        case BridgeWorker::State::running: return "Connected";
        case BridgeWorker::State::refused: return "Refused";
        case BridgeWorker::State::searching: return "No bridge";
        case BridgeWorker::State::connecting: return "Connecting";
        case BridgeWorker::State::idle: break;
    }
    return "Waiting for audio";
}
} // namespace

SpectrumView::SpectrumView (Processor& p) : processor (p)
{
    setTitle ("Spectrum");
    setDescription ("Level by frequency, before and after the repair");
}

void SpectrumView::paint (juce::Graphics& g)
{
    const auto area = getLocalBounds().toFloat();
    g.setColour (juce::Colours::black.withAlpha (0.25f));
    g.fillRoundedRectangle (area, 4.0f);
    const auto inner = area.reduced (4.0f, 4.0f).withTrimmedBottom (14.0f);
    const auto yOf = [&] (float level) { return juce::jmap (juce::jlimit (-100.0f, 0.0f, level), 0.0f, -100.0f, inner.getY(), inner.getBottom()); };
    g.setFont (11.0f);
    for (const auto frequency : { 100.0f, 1000.0f, 10000.0f })
    {
        const auto x = inner.getX() + inner.getWidth() * std::log (frequency / 30.0f) / std::log (20000.0f / 30.0f);
        g.setColour (juce::Colours::white.withAlpha (0.12f));
        g.drawVerticalLine ((int) x, inner.getY(), inner.getBottom());
        g.setColour (juce::Colours::white.withAlpha (0.6f));
        g.drawText (frequency < 1000.0f ? "100 Hz" : frequency < 5000.0f ? "1 kHz" : "10 kHz",
                    juce::Rectangle<float> (x - 30.0f, inner.getBottom(), 60.0f, 14.0f), juce::Justification::centred);
    }
    const auto draw = [&] (const std::array<float, Spectrum::columns>& levels, juce::Colour colour, bool filled) {
        juce::Path path;
        for (int i = 0; i < Spectrum::columns; ++i)
        {
            const auto x = inner.getX() + inner.getWidth() * ((float) i + 0.5f) / (float) Spectrum::columns;
            const auto y = yOf (levels[(size_t) i]);
            i == 0 ? path.startNewSubPath (x, y) : path.lineTo (x, y);
        }
        g.setColour (colour);
        if (filled)
        {
            path.lineTo (inner.getRight(), inner.getBottom());
            path.lineTo (inner.getX(), inner.getBottom());
            path.closeSubPath();
            g.fillPath (path);
        }
        else
            g.strokePath (path, juce::PathStrokeType (1.6f));
    };
    draw (processor.before.levels(), dryColour.withAlpha (0.55f), true);
    draw (processor.after.levels(), wetColour, false);
    const auto legend = inner.withHeight (14.0f).reduced (4.0f, 0.0f);
    g.setColour (dryColour);
    g.drawText ("before", legend.withTrimmedRight (44.0f), juce::Justification::centredRight);
    g.setColour (wetColour);
    g.drawText ("after", legend, juce::Justification::centredRight);
}

Editor::Editor (Processor& p) : juce::AudioProcessorEditor (p), processor (p), spectrum (p)
{
    auto& all = processor.parameters.state;
    title.setText ("StemProver", juce::dontSendNotification);
    title.setFont (juce::Font (20.0f, juce::Font::bold));
    addAndMakeVisible (title);

    const auto name = [this] (juce::Label& label, const juce::String& text, juce::Component& of) {
        label.setText (text, juce::dontSendNotification);
        label.attachToComponent (&of, true);
        addAndMakeVisible (label);
    };
    preset.setTitle ("Preset");
    preset.setTooltip ("What to repair. auto: detected from the audio; blend: the amounts below");
    addAndMakeVisible (preset);
    name (presetLabel, "Preset", preset);
    fillPresets();
    auto& parameter = *all.getParameter (Parameters::preset);
    presetAttachment = std::make_unique<juce::ParameterAttachment> (parameter, [this] (float value) {
        preset.setSelectedId ((int) value + 1, juce::dontSendNotification);
        for (auto& knob : blend)
            knob.slider.setEnabled ((int) value == Presets::blendSlot);
    });
    preset.onChange = [this] { presetAttachment->setValueAsCompleteGesture ((float) (preset.getSelectedId() - 1)); };
    presetAttachment->sendInitialUpdate();

    role.addItemList (Parameters::roleNames(), 1);
    role.setTitle ("Stem");
    role.setTooltip ("What the track holds: without the mix, nothing else says what belongs to it");
    addAndMakeVisible (role);
    name (roleLabel, "Stem", role);
    roleAttachment = std::make_unique<State::ComboBoxAttachment> (all, Parameters::role, role);

    for (const auto* text : Presets::qualities)
        quality.addItem (text, quality.getNumItems() + 1);
    quality.setTitle ("Quality");
    quality.setTooltip ("Sampler steps: one for draft and standard, two for best");
    addAndMakeVisible (quality);
    name (qualityLabel, "Quality", quality);
    qualityAttachment = std::make_unique<State::ComboBoxAttachment> (all, Parameters::quality, quality);

    failure.addItemList ({ "dry", "silence" }, 1);
    failure.setTitle ("If an offline render gets no repair");
    failure.setTooltip ("What an offline render contains if the bridge does not answer; plugin.log records it either way");
    addAndMakeVisible (failure);
    name (failureLabel, "Offline failure", failure);
    failureAttachment = std::make_unique<State::ComboBoxAttachment> (all, Parameters::offlineFailure, failure);

    bypass.setTooltip ("Play the track unrepaired, with the same latency");
    addAndMakeVisible (bypass);
    bypassAttachment = std::make_unique<State::ButtonAttachment> (all, Parameters::bypass, bypass);
    startsBridge.setTooltip ("Start the bridge if it is installed and not running");
    addAndMakeVisible (startsBridge);
    startsBridgeAttachment = std::make_unique<State::ButtonAttachment> (all, Parameters::startBridge, startsBridge);

    for (size_t i = 0; i < blend.size(); ++i)
    {
        const auto id = Presets::adapters[i].replaceCharacter ('-', '_');
        setUp (blend[i], id, all.getParameter (id)->getName (40), "Amount of this adapter in the blend, 0 to 150 %");
    }
    setUp (wet, Parameters::wet, "Wet", "How much of the repair is applied");
    setUp (output, Parameters::gain, "Output", "Gain after the repair, in dB");

    addAndMakeVisible (spectrum);
    processor.before.levels();
    processor.after.levels(); // starts the analysis
    status.setTitle ("Bridge status");
    numbers.setTitle ("Latency, load and late blocks");
    for (auto* label : { &status, &numbers })
    {
        label->setMinimumHorizontalScale (0.8f);
        addAndMakeVisible (*label);
    }
    setResizable (true, true);
    setResizeLimits (520, 432, 1400, 1000);
    setSize (680, 512);
    showStatus();
    startTimerHz (20);
}

Editor::~Editor()
{
    stopTimer();
    processor.before.stop();
    processor.after.stop();
}

void Editor::setUp (Knob& knob, const juce::String& id, const juce::String& text, const juce::String& tooltip)
{
    knob.slider.setSliderStyle (juce::Slider::RotaryHorizontalVerticalDrag);
    knob.slider.setTextBoxStyle (juce::Slider::TextBoxBelow, false, 70, 18);
    knob.slider.setTitle (text);
    knob.slider.setTooltip (tooltip);
    knob.slider.setWantsKeyboardFocus (true);
    knob.label.setText (text, juce::dontSendNotification);
    knob.label.setJustificationType (juce::Justification::centred);
    knob.label.setFont (13.0f);
    knob.label.setBorderSize ({});
    knob.label.setMinimumHorizontalScale (0.7f);
    addAndMakeVisible (knob.slider);
    addAndMakeVisible (knob.label);
    knob.attachment = std::make_unique<State::SliderAttachment> (processor.parameters.state, id, knob.slider);
}

void Editor::fillPresets()
{
    const auto chosen = preset.getSelectedId();
    preset.clear (juce::dontSendNotification);
    const auto names = processor.parameters.presets.names();
    for (int i = 0; i < names.size(); ++i)
    {
        if (i == Presets::shipped)
            preset.addSectionHeading ("Your presets");
        preset.addItem (names[i], i + 1);
    }
    preset.setSelectedId (chosen, juce::dontSendNotification);
    listedPresets = processor.presetsChanged.load();
}

void Editor::timerCallback()
{
    if (listedPresets != processor.presetsChanged.load())
    {
        fillPresets();
        presetAttachment->sendInitialUpdate();
    }
    showStatus();
    spectrum.repaint();
}

void Editor::showStatus()
{
    const auto report = processor.report();
    auto text = nameOf (report.state);
    const auto hostProblem = processor.hostProblem();
    for (const auto& detail : { hostProblem, report.failure, report.warning, report.message })
        if (detail.isNotEmpty())
        {
            text << ": " << detail;
            break;
        }
    status.setColour (juce::Label::textColourId, colourOf (report.state));
    status.setText (juce::String::fromUTF8 ("\xe2\x97\x8f ") + text, juce::dontSendNotification);
    const auto rate = processor.getSampleRate() > 0.0 ? processor.getSampleRate() : 48000.0;
    const auto latency = processor.getLatencySamples();
    numbers.setText ("Latency " + juce::String (latency) + " samples (" + juce::String (juce::roundToInt (1000.0 * latency / rate))
                         + " ms)    Load " + juce::String (juce::roundToInt (100.0f * report.load)) + " %    Late "
                         + juce::String (processor.lateBlocks() + report.late),
                     juce::dontSendNotification);
}

void Editor::paint (juce::Graphics& g)
{
    g.fillAll (getLookAndFeel().findColour (juce::ResizableWindow::backgroundColourId));
}

void Editor::resized()
{
    auto area = getLocalBounds().reduced (12);
    auto top = area.removeFromTop (28);
    title.setBounds (top.removeFromLeft (140));
    bypass.setBounds (top.removeFromRight (90));
    startsBridge.setBounds (top.removeFromRight (150));
    area.removeFromTop (8);

    const auto half = area.getWidth() / 2;
    auto first = area.removeFromTop (26);
    preset.setBounds (first.removeFromLeft (half).withTrimmedLeft (62));
    role.setBounds (first.withTrimmedLeft (102));
    area.removeFromTop (6);
    auto second = area.removeFromTop (26);
    quality.setBounds (second.removeFromLeft (half).withTrimmedLeft (62));
    failure.setBounds (second.withTrimmedLeft (102));
    area.removeFromTop (10);

    auto knobs = area.removeFromTop (juce::jlimit (96, 150, area.getHeight() / 3));
    const auto width = knobs.getWidth() / 7;
    const auto place = [width, &knobs] (Knob& knob) {
        auto cell = knobs.removeFromLeft (width).reduced (2, 0);
        knob.label.setBounds (cell.removeFromTop (20));
        knob.slider.setBounds (cell);
    };
    for (auto& knob : blend)
        place (knob);
    place (wet);
    place (output);

    numbers.setBounds (area.removeFromBottom (22));
    status.setBounds (area.removeFromBottom (22));
    area.removeFromTop (8);
    spectrum.setBounds (area.withTrimmedBottom (6));
}

} // namespace stemprover
