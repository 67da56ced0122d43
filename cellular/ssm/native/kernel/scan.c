/* The scans of whole texts, forward and backward. */
#define CHUNK 16 /* positions whose states the way back keeps at once: 32 kB a head of 32 channels and 16 */

#include "lanes.h"

#include "heads.h"

#include "channels.h"
