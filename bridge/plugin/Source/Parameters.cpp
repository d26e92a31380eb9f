#include "Parameters.h"

namespace stemprover
{

// In saved sessions: do not change.
static const juce::Identifier presetsTag { "presets" }, slotTag { "place" }, nameTag { "name" },
    presetNameTag { "presetName" };

Presets::Presets()
{
    bySlot.add ("general");
    bySlot.add ("auto");
    bySlot.add (blend);
    for (const auto& name : adapters)
        bySlot.add (name);
}

juce::String Presets::nameAt (int slot) const
{
    const juce::ScopedLock hold (lock);
    return bySlot[slot];
}

int Presets::find (const juce::String& name) const
{
    const juce::ScopedLock hold (lock);
    return bySlot.indexOf (name);
}

int Presets::slotOf (const juce::String& name)
{
    const juce::ScopedLock hold (lock);
    const auto found = bySlot.indexOf (name);
    if (found >= 0 || name.isEmpty())
        return found;
    if (bySlot.size() >= slots)
        return -1;
    bySlot.add (name);
    return bySlot.size() - 1;
}

juce::StringArray Presets::names() const
{
    const juce::ScopedLock hold (lock);
    return bySlot;
}

PresetParameter::PresetParameter (const juce::ParameterID& id, Presets& presets)
    : juce::AudioParameterInt (
          id, "Preset", 0, Presets::slots - 1, 0,
          juce::AudioParameterIntAttributes()
              .withStringFromValueFunction ([&presets] (int slot, int) {
                  const auto known = presets.nameAt (slot);
                  return known.isEmpty() ? "(slot " + juce::String (slot + 1) + ")" : known;
              })
              .withValueFromStringFunction ([&presets] (const juce::String& text) {
                  const auto found = presets.find (text.trim());
                  return found >= 0 ? found : text.fromFirstOccurrenceOf ("(slot ", false, false).getIntValue() - 1;
              }))
{
}

juce::StringArray PresetParameter::getAllValueStrings() const
{
    juce::StringArray all;
    for (int i = 0; i < Presets::slots; ++i)
        all.add (static_cast<const juce::RangedAudioParameter&> (*this).getText (convertTo0to1 ((float) i), 0));
    return all;
}

static juce::String percent (float value, int)
{
    return juce::String (juce::roundToInt (100.0f * value)) + " %";
}

juce::StringArray Parameters::roleNames()
{
    return { protocol::roles.data(), (int) protocol::roles.size() };
}

static float fromPercent (const juce::String& text)
{
    return text.getFloatValue() / 100.0f;
}

juce::AudioProcessorValueTreeState::ParameterLayout Parameters::layout()
{
    using namespace juce;
    const auto id = [] (const String& name) { return ParameterID { name, 1 }; };
    const auto percentage = AudioParameterFloatAttributes().withStringFromValueFunction (percent).withValueFromStringFunction (fromPercent);
    const auto notAutomatable = [] (auto attributes) { return attributes.withAutomatable (false); };

    AudioProcessorValueTreeState::ParameterLayout all;
    all.add (std::make_unique<PresetParameter> (id (preset), presets));
    for (const auto& name : Presets::adapters)
    {
        const auto words = name.replaceCharacter ('-', ' ');
        all.add (std::make_unique<AudioParameterFloat> (
            id (name.replaceCharacter ('-', '_')), words.substring (0, 1).toUpperCase() + words.substring (1),
            NormalisableRange<float> (0.0f, protocol::maxBlendWeight), 0.0f, percentage));
    }
    all.add (std::make_unique<AudioParameterFloat> (id (wet), "Wet", NormalisableRange<float> (0.0f, 1.0f), 1.0f, percentage));
    all.add (std::make_unique<AudioParameterBool> (id (bypass), "Bypass", false));
    all.add (std::make_unique<AudioParameterChoice> (
        id (quality), "Quality", StringArray (Presets::qualities.data(), (int) Presets::qualities.size()), 1));
    all.add (std::make_unique<AudioParameterFloat> (
        id (gain), "Output", NormalisableRange<float> (-24.0f, 12.0f), 0.0f, AudioParameterFloatAttributes().withLabel ("dB").withStringFromValueFunction (
            [] (float value, int) { return String (value, 1); })));
    all.add (std::make_unique<AudioParameterChoice> (id (offlineFailure), "Offline failure", StringArray { "dry", "silence" }, 0,
                                                     notAutomatable (AudioParameterChoiceAttributes())));
    all.add (std::make_unique<AudioParameterBool> (id (startBridge), "Start bridge", true, notAutomatable (AudioParameterBoolAttributes())));
    all.add (std::make_unique<AudioParameterChoice> (ParameterID { role, 2 }, "Stem", roleNames(), 0,
                                                     notAutomatable (AudioParameterChoiceAttributes())));
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
    roleValue = state.getRawParameterValue (role);
}

Settings Parameters::settings() const
{
    Settings all;
    all.preset = (int) presetValue->load();
    all.quality = (int) qualityValue->load();
    all.role = (int) roleValue->load();
    if (all.preset == Presets::blendSlot) // other presets ignore the amounts
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
    tree.removeChild (tree.getChildWithName (presetsTag), nullptr);
    juce::ValueTree saved (presetsTag);
    const auto names = presets.names();
    for (int i = 0; i < names.size(); ++i)
        saved.appendChild (juce::ValueTree (slotTag, { { nameTag, names[i] } }), nullptr);
    tree.appendChild (saved, nullptr);
    tree.setProperty (presetNameTag, presets.nameAt (settings().preset), nullptr);
    if (const auto xml = tree.createXml())
        juce::AudioProcessor::copyXmlToBinary (*xml, into);
}

void Parameters::load (const void* data, int size)
{
    constexpr int head = 8; // a magic word and the size of the rest
    if (size < head || (int64_t) juce::ByteOrder::littleEndianInt (static_cast<const char*> (data) + 4) > size - head)
        return; // truncated
    const auto xml = juce::AudioProcessor::getXmlFromBinary (data, size);
    if (xml == nullptr || ! xml->hasTagName (state.state.getType()))
        return; // another plug-in's state, or a damaged one: keep the current settings
    auto tree = juce::ValueTree::fromXml (*xml);
    // In the session's order, so that its automation keeps each name's slot wherever that slot is still free.
    for (const auto& saved : tree.getChildWithName (presetsTag))
        presets.slotOf (saved[nameTag].toString());
    // The name decides, not the slot it had. Without a slot left for it, general.
    const auto slot = juce::jmax (0, presets.slotOf (tree[presetNameTag].toString()));
    tree.getChildWithProperty ("id", preset).setProperty ("value", slot, nullptr);
    state.replaceState (tree);
}

} // namespace stemprover
