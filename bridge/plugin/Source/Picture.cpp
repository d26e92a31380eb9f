/** Draws the editor without a host, for the README and for a test. Plays a file of interleaved float32 (stem left, right,
    mix left, right; 44.1 kHz) into the plug-in in real time and writes the editor as a PNG. Prints a line for each control,
    with its screen-reader name and its bounds, and a line for each that the tab key reaches, in order.

        StemProverPicture AUDIO PICTURE.png [PRESET]   (needs an X server, such as Xvfb) */

#include "Editor.h"

#include <iostream>
#include <thread>

using namespace stemprover;

namespace
{
constexpr double rate = 44100.0;
constexpr int block = 512;

void play (Processor& processor, const juce::MemoryBlock& audio, const std::atomic<bool>& ended)
{
    const auto* samples = static_cast<const float*> (audio.getData());
    const auto frames = (int) (audio.getSize() / (4 * sizeof (float)));
    juce::AudioBuffer<float> buffer (4, block);
    juce::MidiBuffer midi;
    const auto begun = juce::Time::getMillisecondCounterHiRes();
    for (int64_t at = 0; ! ended; at += block)
    {
        while (juce::Time::getMillisecondCounterHiRes() - begun < 1000.0 * (double) at / rate)
            juce::Thread::sleep (1);
        for (int i = 0; i < block; ++i)
            for (int c = 0; c < 4; ++c)
                buffer.setSample (c, i, samples[4 * ((at + i) % frames) + c]);
        processor.processBlock (buffer, midi);
    }
}

juce::String nameOf (const juce::Component& control)
{
    const auto* button = dynamic_cast<const juce::Button*> (&control);
    return control.getTitle().isEmpty() && button != nullptr ? button->getButtonText() : control.getTitle();
}

void printControls (const juce::Component& parent)
{
    for (const auto* child : parent.getChildren())
    {
        const auto control = dynamic_cast<const juce::Slider*> (child) != nullptr || dynamic_cast<const juce::ComboBox*> (child) != nullptr
                             || dynamic_cast<const juce::Button*> (child) != nullptr;
        if (control && child->isVisible())
            std::cout << "control \"" << nameOf (*child) << "\" at " << child->getX() << " " << child->getY() << " "
                      << child->getWidth() << " " << child->getHeight() << " of " << parent.getWidth() << " "
                      << parent.getHeight() << std::endl;
    }
}

void printTabOrder (juce::Component& parent)
{
    for (const auto* child : juce::KeyboardFocusTraverser().getAllComponents (&parent))
    {
        const auto own = nameOf (*child); // a knob's text box has no name of its own: use the knob's
        std::cout << "tab \"" << (own.isEmpty() ? nameOf (*child->getParentComponent()) : own) << "\"" << std::endl;
    }
}

struct StopAfter : private juce::Timer
{
    explicit StopAfter (int milliseconds) { startTimer (milliseconds); }
    void timerCallback() override
    {
        stopTimer();
        juce::MessageManager::getInstance()->stopDispatchLoop();
    }
};

bool write (const juce::Image& image, const juce::File& to)
{
    to.deleteFile();
    juce::FileOutputStream out (to);
    return out.openedOk() && juce::PNGImageFormat().writeImageToStream (image, out);
}
} // namespace

int main (int count, char** arguments)
{
    if (count < 3)
        return 2;
    const juce::ScopedJuceInitialiser_GUI gui;
    const auto here = juce::File::getCurrentWorkingDirectory();
    juce::MemoryBlock audio;
    if (! here.getChildFile (arguments[1]).loadFileAsData (audio) || audio.getSize() < 4 * sizeof (float) * block)
        return 3;

    Processor processor;
    juce::AudioProcessor::BusesLayout layout;
    layout.inputBuses = { juce::AudioChannelSet::stereo(), juce::AudioChannelSet::stereo() };
    layout.outputBuses = { juce::AudioChannelSet::stereo() };
    if (! processor.setBusesLayout (layout))
        return 4;
    processor.setRateAndBufferSizeDetails (rate, block);
    processor.prepareToPlay (rate, block);
    if (count > 3)
    {
        auto& preset = *processor.parameters.state.getParameter (Parameters::preset);
        preset.setValueNotifyingHost (preset.convertTo0to1 ((float) processor.parameters.presets.find (arguments[3])));
    }
    std::atomic<bool> ended { false };
    std::thread player ([&] { play (processor, audio, ended); });
    const std::unique_ptr<juce::AudioProcessorEditor> editor (processor.createEditor());
    {
        const StopAfter stop (8000);
        juce::MessageManager::getInstance()->runDispatchLoop();
    }
    printControls (*editor);
    printTabOrder (*editor);
    const auto written = write (editor->createComponentSnapshot (editor->getLocalBounds(), true, 1.5f), here.getChildFile (arguments[2]));
    editor->setSize (520, 400);
    printControls (*editor);
    ended = true;
    player.join();
    return written ? 0 : 5;
}
