/* Trunkline beside another library made by Rust: each panics, prints and allocates for itself. */
#include <trunkline.h>

#include <stdio.h>

uint32_t beside(uint32_t number);

int main(void) {
    trunk_engine *engine;
    if (trunk_engine_new(NULL, &engine) != TRUNK_OK) {
        fprintf(stderr, "%s\n", trunk_last_error());
        return 1;
    }
    printf("%u %u\n", (unsigned)beside(1), (unsigned)beside(5));
    return trunk_engine_destroy(engine) == TRUNK_OK ? 0 : 1;
}
