// The queues of the stand-in, as the libraries beside the driver see them.
#pragma once

#include <functional>

// Puts work at the end of a stream; it is done when somebody waits for it, or earlier if the dice say so.
void standin_enqueue(void* stream, std::function<void()> work);

// Whether this thread has chosen a device, without which every call fails.
bool standin_chosen();

// Which deliberate mistake is made; 0 is none. See `standin_mutant` in driver.cpp.
int standin_current_mutant();

enum StandinMutant {
    MUTANT_NONE,
    MUTANT_MISSING_EVENT_WAIT,
    MUTANT_LEADING_DIMENSION,
    MUTANT_UPPER_FOR_LOWER,
    MUTANT_LAUNCH_BOUND,
    MUTANT_MISSING_STREAM_WAIT,
};
