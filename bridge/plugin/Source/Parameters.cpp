#include "Parameters.h"

namespace stemprover
{

static const juce::Identifier table { "presets" }, place { "place" }, nameOf { "name" }, chosen { "presetName" };

Presets::Presets()
{
    table.add ("general");
    table.add ("auto");
    table.add (blend);
    for (const auto& name : adapters)
        table.add (name);
}

juce::String Presets::nameAt (int number) const
{
    const juce::ScopedLock hold (lock);
    return table[number];
}

int Presets::find (const juce::String& name) const
{
    const juce::ScopedLock hold (lock);
    return table.indexOf (name);
}

int Presets::placeOf (const juce::String& name)
{
    const juce::ScopedLock hold (lock);
    const auto found = table.indexOf (name);
    if (found >= 0 || name.isEmpty())
        return found;
    if (table.size() >= places)
        return -1;
    table.add (name);
    return table.size() - 1;
}

juce::StringArray Presets::names() const
{
    const juce::ScopedLock hold (lock);
    return table;
}

PresetParameter::PresetParameter (const juce::ParameterID& id, Presets& presets)
    : juce::AudioParameterInt (
          id, "Preset", 0, Presets::places - 1, 0,
          juce::AudioParameterIntAttributes()
              .withStringFromValueFunction ([&presets] (int number, int) {
                  const auto known = presets.nameAt (number);
                  return known.isEmpty() ? "(place " + juce::String (number + 1) + ")" : known;
              })
              .withValueFromStringFunction ([&presets] (const juce::String& text) {
                  const auto found = presets.find (text.trim());
                  return found >= 0 ? found : text.fromFirstOccurrenceOf ("(place ", false, false).getIntValue() - 1;
              }))
{
}

juce::StringArray PresetParameter::getAllValueStrings() const
{
    juce::StringArray all;
    for (int i = 0; i < Presets::places; ++i)
        all.add (static_cast<const juce::RangedAudioParameter&> (*this).getText (convertTo0to1 ((float) i), 0));
    return all;
}

static juce::String percent (float value, int)
{
    return juce::String (juce::roundToInt (100.0f * value)) + " %";
}

static float fromPercent (const juce::String& text)
{
    return text.getFloatValue() / 100.0f;
}

juce::AudioProcessorValueTreeState::ParameterLayout Parameters::layout()
{
    using namespace juce;
    const auto id = [] (const String& name) { return ParameterID { name, 1 }; };
    const auto shares = AudioParameterFloatAttributes().withStringFromValueFunction (percent).withValueFromStringFunction (fromPercent);
    const auto fixed = [] (auto attributes) { return attributes.withAutomatable (false); };

    AudioProcessorValueTreeState::ParameterLayout all;
    all.add (std::make_unique<PresetParameter> (id (preset), presets));
    for (const auto& name : Presets::adapters)
    {
        const auto words = name.replaceCharacter ('-', ' ');
        all.add (std::make_unique<AudioParameterFloat> (
            id (name.replaceCharacter ('-', '_')), words.substring (0, 1).toUpperCase() + words.substring (1),
            NormalisableRange<float> (0.0f, 1.5f), 0.0f, shares));
    }
    all.add (std::make_unique<AudioParameterFloat> (id (wet), "Wet", NormalisableRange<float> (0.0f, 1.0f), 1.0f, shares));
    all.add (std::make_unique<AudioParameterBool> (id (bypass), "Bypass", false));
    all.add (std::make_unique<AudioParameterChoice> (
        id (quality), "Quality", StringArray (Presets::qualities.data(), (int) Presets::qualities.size()), 1));
    all.add (std::make_unique<AudioParameterFloat> (
        id (gain), "Output", NormalisableRange<float> (-24.0f, 12.0f), 0.0f, AudioParameterFloatAttributes().withLabel ("dB").withStringFromValueFunction (
            [] (float value, int) { return String (value, 1); })));
    all.add (std::make_unique<AudioParameterChoice> (id (offlineFailure), "Offline failure", StringArray { "dry", "silence" }, 0,
                                                     fixed (AudioParameterChoiceAttributes())));
    all.add (std::make_unique<AudioParameterBool> (id (startBridge), "Start bridge", true, fixed (AudioParameterBoolAttributes())));
    return all;
}

Parameters::Parameters (juce::AudioProcessor& processor) : state (processor, nullptr, "StemProver", layout())
{
    for (size_t i = 0; i < blend.size(); ++i)
        blend[i] = state.getRawParameterValue (Presets::adapters[i].replaceCharacter ('-', '_'));
    presetValue = state.getRawParameterValue (preset);
    wetValue = state.getRawParameterValue (wet);
    bypassValue = state.getRawParameterValue (bypass);
    qualityValue = state.getRawParameterValue (quality);
    gainValue = state.getRawParameterValue (gain);
    failureValue = state.getRawParameterValue (offlineFailure);
    startValue = state.getRawParameterValue (startBridge);
}

Settings Parameters::settings() const
{
    Settings all;
    all.preset = (int) presetValue->load();
    all.quality = (int) qualityValue->load();
    if (all.preset == 2) // the amounts count for nothing elsewhere
        for (size_t i = 0; i < blend.size(); ++i)
            all.blend[i] = blend[i]->load();
    return all;
}

Controls Parameters::controls() const
{
    const auto level = gainValue->load();
    return { wetValue->load(), bypassValue->load() > 0.5f, level == 0.0f ? 1.0f : std::pow (10.0f, level / 20.0f) };
}

void Parameters::save (juce::MemoryBlock& into)
{
    auto tree = state.copyState();
    tree.removeChild (tree.getChildWithName (table), nullptr);
    juce::ValueTree kept (table);
    const auto names = presets.names();
    for (int i = 0; i < names.size(); ++i)
        kept.appendChild (juce::ValueTree (place, { { nameOf, names[i] } }), nullptr);
    tree.appendChild (kept, nullptr);
    tree.setProperty (chosen, presets.nameAt (settings().preset), nullptr);
    if (const auto xml = tree.createXml())
        juce::AudioProcessor::copyXmlToBinary (*xml, into);
}

void Parameters::load (const void* data, int size)
{
    constexpr int head = 8; // a magic word and the size of what follows
    if (size < head || (int64_t) juce::ByteOrder::littleEndianInt (static_cast<const char*> (data) + 4) > size - head)
        return; // cut off
    const auto xml = juce::AudioProcessor::getXmlFromBinary (data, size);
    if (xml == nullptr || ! xml->hasTagName (state.state.getType()))
        return; // another plug-in's, or damaged: what is set stays
    auto tree = juce::ValueTree::fromXml (*xml);
    // In the session's order, so that its automation finds each place under its name wherever that is still free.
    for (const auto& one : tree.getChildWithName (table))
        presets.placeOf (one[nameOf].toString());
    // The name counts, not the place that it had; a name for which there is no place any more is general.
    const auto number = juce::jmax (0, presets.placeOf (tree[chosen].toString()));
    tree.getChildWithProperty ("id", preset).setProperty ("value", number, nullptr);
    state.replaceState (tree);
}

} // namespace stemprover
