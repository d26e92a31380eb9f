#include "BridgeProcess.h"
#include "Environment.h"

#include <algorithm>
#include <mutex>
#include <string>
#include <vector>

#if JUCE_LINUX || JUCE_MAC || JUCE_BSD
 #include <fcntl.h>
 #include <spawn.h>
 #include <sys/wait.h>
 #include <unistd.h>
extern char** environ;
#endif

namespace stemprover
{

static juce::String findCommand()
{
    const auto installed = settingsFolder().getChildFile ("command").loadFileAsString().trim();
    if (installed.isNotEmpty() && juce::File::isAbsolutePath (installed) && juce::File (installed).existsAsFile())
        return installed;
   #if JUCE_WINDOWS
    const juce::String name { "stemprover.exe" }, separator { ";" };
   #else
    const juce::String name { "stemprover" }, separator { ":" };
   #endif
    juce::StringArray folders;
    folders.addTokens (juce::SystemStats::getEnvironmentVariable ("PATH", {}), separator, {});
    folders.add (juce::File::getSpecialLocation (juce::File::userHomeDirectory).getChildFile (".local/bin").getFullPathName());
    for (const auto& folder : folders)
        if (juce::File::isAbsolutePath (folder) && juce::File (folder).getChildFile (name).existsAsFile())
            return juce::File (folder).getChildFile (name).getFullPathName();
    return {};
}

bool startBridge (int port, const juce::String& given)
{
    const auto command = given.isNotEmpty() ? given : findCommand();
    if (command.isEmpty())
        return false;
   #if JUCE_LINUX || JUCE_MAC || JUCE_BSD
    const auto portText = juce::String (port), httpPort = juce::String (port + 1);
    std::vector<std::string> words { command.toStdString(), "serve", "--port", portText.toStdString(),
                                     "--http-port", httpPort.toStdString() };
    std::vector<char*> arguments;
    for (auto& word : words)
        arguments.push_back (word.data());
    arguments.push_back (nullptr);

    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init (&files);
    posix_spawnattr_init (&attributes);
    for (const auto descriptor : { STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO })
        posix_spawn_file_actions_addopen (&files, descriptor, "/dev/null", O_RDWR, 0);
   #ifdef POSIX_SPAWN_SETSID
    posix_spawnattr_setflags (&attributes, POSIX_SPAWN_SETSID);
   #endif
    static std::mutex mutex;
    static std::vector<pid_t> started;
    const std::lock_guard<std::mutex> hold (mutex);
    // Bridges that have ended are collected here, or they would stay as zombies as long as the host runs.
    started.erase (std::remove_if (started.begin(), started.end(), [] (pid_t one) { return waitpid (one, nullptr, WNOHANG) != 0; }),
                   started.end());
    pid_t child = 0;
    const auto failed = posix_spawn (&child, arguments[0], &files, &attributes, arguments.data(), environ);
    posix_spawn_file_actions_destroy (&files);
    posix_spawnattr_destroy (&attributes);
    if (failed == 0)
        started.push_back (child);
    return failed == 0;
   #else
    juce::ChildProcess process;
    return process.start (juce::StringArray { command, "serve", "--port", juce::String (port), "--http-port", juce::String (port + 1) }, 0);
   #endif
}

} // namespace stemprover
