// Package cpp is a C preprocessor for build files whose names end in ".in".
//
// It reads what GNU cpp -E -traditional -undef reads, which is how buildah
// calls that program, and needs no program itself. The traditional language
// is older than ISO C and kinder to shell text: a directive begins with a #
// in the first column; nothing is expanded within quotes, which end with
// their line; // is text, as in a URL; /* */ is a comment wherever it is not
// quoted, and leaves nothing behind.
//
// Directives: #include, #import, #define, #undef, #if, #ifdef, #ifndef,
// #elif, #elifdef, #elifndef, #else, #endif, #error, #warning, #pragma (once
// has its meaning, others are kept) and #line (ignored). Each other line that
// begins with # is a comment of the Containerfile or text of a script, and
// stays byte for byte.
//
// Macros are object-like (#define NAME text) or function-like
// (#define NAME(a, b) text); the last parameter may be "..." or "name...". As
// in every traditional preprocessor # and ## are no operators, so that
// ${#name} and ${name##*/} survive; a parameter within quotes of the body is
// replaced, which makes a string of it, and /**/ joins its neighbours. A macro
// is not expanded within its own expansion. __FILE__, __BASE_FILE__,
// __LINE__, __INCLUDE_LEVEL__ and __COUNTER__ are there from the start;
// __DATE__, __TIME__ and __TIMESTAMP__ are refused, for no build that holds
// them is the same twice.
//
// #if takes the integer expressions of C in 64 bits, signed and unsigned,
// with defined NAME, defined(NAME) and __has_include("file").
//
// Lines keep their numbers until an #include brings more lines than its own:
// what is removed leaves empty lines, and lines that end in \ stay apart.
//
// What is read is foreign. Included files come from a function of the caller,
// which is never asked for a name that leaves the root; depth, the work of
// expansions and the output are bounded. Errors are one line, FILE:LINE:
// first.
package cpp
