#pragma once

#include <juce_core/juce_core.h>

namespace stemprover
{

/** Starts `stemprover serve` on a port, as a process of its own that outlives the host. False where it is not installed:
    where no command is given, it is looked for in the file that `stemprover plugin install` writes, and on the PATH. */
bool startBridge (int port, const juce::String& command);

/** A line into the plug-in's log and onto the error stream. Not for the audio thread, but offline. */
void writeLog (const juce::String& line);

/** An environment variable as a number, or `otherwise`. */
double numberFromEnvironment (const char* name, double otherwise);

} // namespace stemprover
