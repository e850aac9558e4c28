// What Node begins with in a guest of the VM lane. QEMU's emulation goes on with its translation of a jump that another
// processor has changed meanwhile. V8 changes jumps to WebAssembly (which strips TypeScript's types) when it has better code,
// and frees what they led to before: processes ran into freed memory and ended with SIGSEGV or SIGTRAP, three of four that had
// no compile cache yet. The worse code, kept, is as good.
require('node:v8').setFlagsFromString('--no-wasm-code-gc');
