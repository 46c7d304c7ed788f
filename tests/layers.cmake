# Which folder may include which: fails when an include points another way, when core reads a clock,
# when two headers call different things alike, or when a test is in no list of sources.
# SPDX-License-Identifier: Apache-2.0
cmake_minimum_required(VERSION 3.25)

# A folder, and a pattern of the folders beside itself that it may include. The innermost one that
# holds a file rules it; what stands in a folder itself is no part of its sub-folders.
set(rooms
  "core/model"
  "core/load=core/model"
  "core/workers=core/(load|model)"
  "core/balance=core/model"
  "core/balance/online=core/(balance|model)"
  "core/balance/scratch=core/(balance|model)"
  "core/balance/published=core/(balance|model)"
  "core/decide=core/(balance|workers|load|model)"
  "lib=core/[a-z]+"
  "config=core/[a-z]+"
  "metrics=core/[a-z]+"
  "daemon/formats=core/[a-z]+"
  "daemon/net=daemon/formats|config|core/[a-z]+"
  "daemon/store=daemon/formats|core/[a-z]+"
  "daemon/etcd=daemon/store|config|core/[a-z]+"
  "daemon=daemon/[a-z]+|config|metrics|core/[a-z]+"
  "eplbctl=daemon|daemon/[a-z]+|config|metrics|core/[a-z]+")
set(ours "^(core|lib|config|metrics|daemon|eplbctl|tests|bench)/")
set(failures "")

function(check_file source folder allowed)
  file(STRINGS ${SOURCE}/${source} includes REGEX "^[ \t]*#[ \t]*include")
  foreach(line IN LISTS includes)
    string(REGEX MATCH "[<\"]([^>\"]*)[>\"]" _ "${line}")
    set(path "${CMAKE_MATCH_1}")
    if(path MATCHES "${ours}")
      cmake_path(GET path PARENT_PATH target)
      if(NOT target MATCHES "^(${folder}|${allowed})$")
        list(APPEND failures "${source}: ${folder} includes ${path}")
      endif()
    elseif(folder MATCHES "^core/" AND path MATCHES "[./]"
           AND NOT path MATCHES "^(immintrin.h|Eigen/[A-Za-z]+)$")
      # Standard headers have no dot and no slash.
      list(APPEND failures "${source}: core includes ${path}")
    endif()
  endforeach()
  if(folder MATCHES "^core/")
    file(STRINGS ${SOURCE}/${source} clocks REGEX "::now\\(|std::getenv|std::thread|fopen|std::[io]?fstream")
    foreach(line IN LISTS clocks)
      list(APPEND failures "${source}: core is pure, but: ${line}")
    endforeach()
  endif()
  set(failures "${failures}" PARENT_SCOPE)
endfunction()

foreach(top core lib config metrics daemon eplbctl)
  file(GLOB_RECURSE sources RELATIVE ${SOURCE} ${SOURCE}/${top}/*.h ${SOURCE}/${top}/*.cc)
  foreach(source IN LISTS sources)
    cmake_path(GET source PARENT_PATH folder)
    set(ruled FALSE)
    foreach(room IN LISTS rooms)
      string(REGEX MATCH "^([^=]+)=?(.*)$" _ "${room}")
      if(CMAKE_MATCH_1 STREQUAL folder)
        set(ruled TRUE)
        check_file(${source} ${folder} "${CMAKE_MATCH_2}")
      endif()
    endforeach()
    if(NOT ruled AND NOT folder STREQUAL "daemon/page")
      list(APPEND failures "${source}: no room is called ${folder}")
    endif()
  endforeach()
endforeach()

# One namespace holds them all: of two classes with one name the linker takes either's functions.
file(GLOB_RECURSE headers RELATIVE ${SOURCE} ${SOURCE}/core/*.h ${SOURCE}/lib/*.h ${SOURCE}/config/*.h
     ${SOURCE}/metrics/*.h ${SOURCE}/daemon/*.h ${SOURCE}/eplbctl/*.h)
foreach(header IN LISTS headers)
  file(STRINGS ${SOURCE}/${header} classes REGEX "^(class|struct|enum class|enum) [A-Za-z]+ .*{")
  foreach(line IN LISTS classes)
    string(REGEX REPLACE "^(class|struct|enum class|enum) ([A-Za-z]+) .*" "\\2" name "${line}")
    if(DEFINED header_of_${name})
      list(APPEND failures "${header}: ${name} is in ${header_of_${name}} too")
    endif()
    set(header_of_${name} ${header})
  endforeach()
endforeach()

# A test that no list of sources names would never run.
foreach(library core lib config metrics daemon eplbctl)
  file(READ ${SOURCE}/tests/${library}/CMakeLists.txt listed)
  file(GLOB_RECURSE tests RELATIVE ${SOURCE}/tests/${library} ${SOURCE}/tests/${library}/*_test.cc)
  foreach(test IN LISTS tests)
    string(FIND "${listed}" "${test}" found)
    if(found LESS 0)
      list(APPEND failures "tests/${library}/${test}: not in tests/${library}/CMakeLists.txt")
    endif()
  endforeach()
endforeach()

foreach(failure IN LISTS failures)
  message("${failure}")
endforeach()
if(failures)
  message(FATAL_ERROR "the layout is broken")
endif()
