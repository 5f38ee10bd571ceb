/* In the place of csrc/amx.c where tiles are emulated. */
#include "common.h"

int fvlrp_has_tiles(void) { return 1; }
int fvlrp_ask_for_tiles(void) { return 1; }
