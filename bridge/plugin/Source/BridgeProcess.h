#pragma once

#include <juce_core/juce_core.h>

namespace stemprover
{

/** Starts `stemprover serve` on a port, as a separate process that outlives the host. If no command is given, it uses the
    one that `stemprover plugin install` has noted, or the one on the PATH. False if there is none or it cannot be run. */
bool startBridge (int port, const juce::String& command);

} // namespace stemprover
