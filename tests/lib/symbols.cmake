# What the library exports is what the golden list says: a symbol that goes breaks programs, one
# that comes by mistake is promised for ever.
cmake_minimum_required(VERSION 3.25)
execute_process(COMMAND ${NM} --dynamic --defined-only --with-symbol-versions ${LIBRARY}
                OUTPUT_VARIABLE listed COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[TDBRVW] [^\n]+" symbols "${listed}")
list(TRANSFORM symbols REPLACE "^[A-Z] " "")
list(SORT symbols)
file(STRINGS ${GOLDEN} wanted)
if(NOT symbols STREQUAL wanted)
  list(JOIN symbols "\n" text)
  message(FATAL_ERROR "the library exports\n${text}\nnot what ${GOLDEN} lists")
endif()
