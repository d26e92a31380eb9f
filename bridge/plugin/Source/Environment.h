#pragma once

#include <juce_core/juce_core.h>

namespace stemprover
{

/** The user's StemProver settings: plugin.log, and the file `command` that `stemprover plugin install` writes. */
juce::File settingsFolder();

/** Adds a line to plugin.log and to stderr. On the audio thread only offline. */
void writeLog (const juce::String& line);

/** An environment variable as a number, or `otherwise` if it is missing or not a number. */
double numberFromEnvironment (const char* name, double otherwise);

} // namespace stemprover
