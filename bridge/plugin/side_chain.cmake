# JUCE does not mark the side-chain's ports and their group as a side-chain, which hosts such as Ardour need. This adds it.
#   cmake -DTTL=dsp.ttl -P side_chain.cmake
file(READ "${TTL}" text)
string(REPLACE "lv2:name \"Mix\" ;\n" "lv2:name \"Mix\" ;\n\tpg:sideChainOf plug:input_group_1 ;\n" text "${text}")
string(REPLACE "pg:group plug:input_group_2 ;\n\t\tlv2:portProperty lv2:connectionOptional ;"
  "pg:group plug:input_group_2 ;\n\t\tlv2:portProperty lv2:connectionOptional , lv2:isSideChain ;" text "${text}")
if(NOT text MATCHES "isSideChain" OR NOT text MATCHES "sideChainOf")
  message(FATAL_ERROR "${TTL}: JUCE writes the side-chain's group and ports differently; adapt side_chain.cmake")
endif()
file(WRITE "${TTL}" "${text}")
