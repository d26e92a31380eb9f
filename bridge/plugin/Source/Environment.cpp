#include "Environment.h"

#include <iostream>

namespace stemprover
{

juce::File settingsFolder()
{
   #if JUCE_LINUX || JUCE_BSD
    const auto config = juce::SystemStats::getEnvironmentVariable ("XDG_CONFIG_HOME", {});
    if (config.isNotEmpty())
        return juce::File (config).getChildFile ("stemprover");
    return juce::File::getSpecialLocation (juce::File::userHomeDirectory).getChildFile (".config/stemprover");
   #elif JUCE_MAC
    return juce::File::getSpecialLocation (juce::File::userApplicationDataDirectory).getChildFile ("Application Support/stemprover");
   #else
    return juce::File::getSpecialLocation (juce::File::windowsLocalAppData).getChildFile ("stemprover");
   #endif
}

void writeLog (const juce::String& line)
{
    const auto file = settingsFolder().getChildFile ("plugin.log");
    file.getParentDirectory().createDirectory();
    if (file.getSize() > 1 << 20)
        file.moveFileTo (file.withFileExtension ("log.1"));
    file.appendText (juce::Time::getCurrentTime().toISO8601 (true) + " " + line + "\n", false, false, "\n");
    std::cerr << "StemProver: " << line << std::endl;
}

double numberFromEnvironment (const char* name, double otherwise)
{
    const auto text = juce::SystemStats::getEnvironmentVariable (name, {});
    return text.containsOnly ("0123456789.") && text.isNotEmpty() ? text.getDoubleValue() : otherwise;
}

} // namespace stemprover
